"""What became of deliveries, in Redis: acknowledged, parked and loaded again, dead, trimmed.

Owns every write that says what became of an entry, each in one script with the lease compared
first. Must not decide outcomes. Start reading at `settler.py`, then `parking.py`.
"""
