"""Which worker should own which partition: rendezvous hashing with equal shares.

Pure. Every worker computes the same answer from the same two lists, so there is no leader. Shares
are ⌊P/N⌋, and one more for the first P mod N workers; when a worker comes or goes, few partitions
move beyond those that must.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def assign(workers: Sequence[str], partitions: int) -> dict[int, str]:
    """Partition → worker, for all partitions; empty when there is no worker.

    Each partition, in turn, goes to the worker with the highest score that has room left.
    """
    ordered = sorted(set(workers))
    if not ordered:
        return {}
    share, one_more = divmod(partitions, len(ordered))
    room = {worker: share + (i < one_more) for i, worker in enumerate(ordered)}
    owner = {}
    for partition in range(partitions):
        chosen = max(
            (worker for worker in ordered if room[worker]),
            key=lambda worker: _score(worker, partition),
        )
        room[chosen] -= 1
        owner[partition] = chosen
    return owner


def _score(worker: str, partition: int) -> bytes:
    return hashlib.blake2b(f"{worker}/{partition}".encode(), digest_size=8).digest()
