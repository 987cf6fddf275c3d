"""From an entry in Redis to a handler that returned, and what follows from that.

Owns fetching, calling, time limits, attempts and whether one is charged. Must not write to Redis.
Start reading at `fetcher.py`, then `runner.py`.
"""
