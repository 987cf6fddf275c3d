"""The ingress: answers the platform's callbacks at once and publishes them to Redis streams.

Owns the stream contract (`bridge.contract`). Must not import `consumers`.
"""

__version__ = "0.1.0"
