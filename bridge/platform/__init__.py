"""What the platform sends: statuses, DTOs, schemas, and a callback's body made a notification.

Owns what is valid and what identifies an event. Must not do I/O, nor know of Redis or HTTP.
Start reading at `recognition.py`; each sender's form has a module in `forms/`, with the schemas
that are the authority.
"""
