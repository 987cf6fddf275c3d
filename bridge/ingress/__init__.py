"""The ingress as a program: its composition, the callback handler, the monitor.

Owns what happens between a request and its answer, and what is watched beside that. Only `app.py`
sees settings. Start reading at `callback.py`.
"""
