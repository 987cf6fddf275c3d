"""The sandbox: a process beside the child, where suspects run and harm nobody but it.

A suspect is what may have killed a child, or hung in one. Owns that process, the line to it and
what is said on it. Must not know of Redis: which suspect runs, and what follows from how that ends,
is the child's. Start reading at `sandbox.py`; `inside.py` is the other end.
"""
