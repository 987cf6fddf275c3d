"""A parking lot without cars, for tests of what is beside it."""

from __future__ import annotations

from consumers.worker.partitions.partition import Partition


class NothingParked:
    """Stands where parking does."""

    def look_again(self, partition: Partition) -> None: ...
