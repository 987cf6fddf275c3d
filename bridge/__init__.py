"""Answers the platform's command callbacks at once and keeps them in Redis streams.

One room per job, from `contract/` (what both halves agree on) up to `cli/`; ARCHITECTURE.md has the
floors. Start reading at `ingress/callback.py`, where a callback comes in.
"""

__version__ = "0.2.0"
