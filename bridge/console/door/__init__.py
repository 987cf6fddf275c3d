"""Who gets in, and what a request must be before any page sees it.

Owns names, log-ins, sessions, the origin of what changes something, and bodies. Must not know any
page. Start reading at `authentication.py`.
"""
