"""Owned partitions: assignment, leases, and each one's lanes.

Owns which partition is ours until when, and the order in which its deliveries may start. Must not
call handlers or write outcomes. Start reading at `leases.py` and `lanes.py`.
"""
