"""When a process has done enough, or grown too large, and another should take its place."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Final

from bridge.telemetry import logs
from consumers.worker.partitions.shared_state import SharedState, Wish

_MIB: Final = 2**20
_STATM: Final = Path("/proc/self/statm")  # proc_pid_statm(5)


class Recycling:
    """`look` now and then. 0 as a limit: none."""

    def __init__(self, shared: SharedState, *, after_deliveries: int, at_mib: int) -> None:
        self._shared = shared
        self._after_deliveries = after_deliveries
        self._at_mib = at_mib
        self._log = logs.get("worker")
        self._is_first = True

    def look(self, *, deliveries: int) -> None:
        """Asks for a successor where a limit is reached."""
        if 0 < self._after_deliveries <= deliveries:
            self._shared.ask_for_successor(Wish.DELIVERIES)
        if self._at_mib:
            self._look_at_memory()

    def _look_at_memory(self) -> None:
        used_mib = memory_mib()
        if used_mib < self._at_mib:
            self._is_first = False
        elif self._is_first:
            # Another one would be as large: it would be replaced again, and again.
            self._log.error(
                "recycle_at_mib_too_low", used_mib=used_mib, advice="it starts with more than that"
            )
            self._at_mib = 0
        else:
            self._shared.ask_for_successor(Wish.MEMORY)


def memory_mib() -> int:
    """What this process has in memory; where that is not to be had, the most it ever had."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // (_MIB if sys.platform == "darwin" else 1024)
    return pages * resource.getpagesize() // _MIB
