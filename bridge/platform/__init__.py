"""What the platform sends: statuses, DTOs, schemas, and a callback's body made a notification.

Owns what is valid and what identifies an event. Must not do I/O, nor know of Redis or HTTP.
Start reading at `notification.py`; `schemas.py` is the authority that it is derived from.
"""
