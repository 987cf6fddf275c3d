"""Parent and child: start, stop, registration, the receiver's loading and preparing.

Owns processes, signals and what one learns of the other's death. Must not know of an entry's
content. Start reading at `parent.py` and `composition.py`.
"""
