"""Descriptors: as many open files as the connections need, and some kept back for the rest.

Owns the process's soft limit (RLIMIT_NOFILE, getrlimit(2)), which is 1,024 nearly everywhere, for
the sake of programs that use select(2); this one does not.
"""

from __future__ import annotations

import resource
from typing import Final

from bridge.errors import UsageError

KEPT_BACK: Final = 40
"""For Redis, the spool, the log, a certificate that is read again, and connections being closed."""


def room_for(connections: int, *, others: int) -> int:
    """Raises the soft limit to what `connections` and `others` need, or as far as it goes.

    Returns how many of `connections` have room then; `UsageError` if none has.
    """
    needed = connections + others + KEPT_BACK
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _is_enough(soft, needed):
        return connections
    wanted = needed if _is_enough(hard, needed) else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    except (ValueError, OSError):  # macOS has a lower bound that the hard limit does not show
        pass
    if soft >= needed:
        return connections
    if soft <= others + KEPT_BACK:
        raise UsageError(
            f"the limit of {soft} open files leaves none for callbacks: raise it to {needed} "
            "(ulimit -n, or LimitNOFILE= of a systemd unit)"
        )
    return soft - others - KEPT_BACK


def _is_enough(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed
