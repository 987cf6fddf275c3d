"""The queue on this machine's disk, for as long as Redis cannot take notifications.

Owns the files, their locks, the SQL and the one thread that may block on the disk. Must not know of
Redis, nor decide when to spool or to drain. Start reading at `spool.py`, then `file_set.py`.
"""
