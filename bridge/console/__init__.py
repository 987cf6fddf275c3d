"""The operators' web console: what `bridge.operations` knows, as pages.

Owns routes, templates, who may log in, and what browsers are allowed. Must not send a command to
Redis nor judge what is found: pages ask operations, and show what they say. Only `app.py` sees
settings. Start reading at `application.py`, then `page.py` and a page in `pages/`.
"""
