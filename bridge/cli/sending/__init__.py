"""`nb-bridge send`: plays the platform, in order per device, and repeats what failed.

Owns made-up traffic and its tally; knows nothing of Redis. Start reading at `send.py`.
"""
