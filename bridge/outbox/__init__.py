"""From a valid notification to Redis, or to the disk until Redis can take it.

Owns the promise behind a 200: group commit, the publisher, the spool, the drainer, the quarantine.
Must not know of HTTP or of settings. Start reading at `outbox.py`, then `group_commit.py`.
"""
