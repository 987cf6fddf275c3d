"""How each sender writes what it pushes: a module for a form, `form.py` for what they share.

A module owns its schemas (the authority), the accept path derived from them, and how its bodies
are put into the documented shape. Which form a body has, `bridge.platform.recognition`
says. Must not know of each other, but for what one form has of another. Start reading at `nb.py`.
"""
