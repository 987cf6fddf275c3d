"""Every setting: one row each, here for workers; in `common`, `ingress` and `console` the rest.

The variable is the field's name in capitals, with the prefix `NB_BRIDGE_`. To add a setting, add a
row: `--help`, `nb-bridge settings` and the reading of the environment follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from bridge.settings.console import WithConsole
from bridge.settings.readers import (
    matching,
    number,
    one_of,
    setting,
)

PREFIX: Final = "NB_BRIDGE_"
WORKER: Final = "worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(WithConsole):
    """Every setting of all programs. The variable is the field's name in capitals, prefixed."""

    receiver: str | None = setting(
        None,
        "the plugin: an entry-point name, module:Class or path/to/file.py:Class",
        default_text="the only one installed",
        halves=WORKER,
    )
    group: str = matching(
        "default",
        "consumer group of this worker; every group sees every notification",
        r"^[A-Za-z0-9_.-]{1,64}$",
        "may hold letters, digits and _ . - only",
        halves=WORKER,
    )
    concurrency: int = number(
        64, "deliveries running at once in one worker", low=1, high=4096, halves=WORKER
    )
    handler_timeout_s: float = number(
        60.0, "seconds a handler may take", low=0.01, high=86400, halves=WORKER
    )
    max_attempts: int = number(
        10, "attempts before a notification becomes a dead letter", low=1, high=1000, halves=WORKER
    )
    recycle_after_deliveries: int = number(
        0,
        "deliveries after which a new process takes a worker's place; 0: never",
        low=0,
        high=10**12,
        halves=WORKER,
    )
    recycle_at_mib: int = number(
        0,
        "MiB of memory at which a new process takes a worker's place; 0: never",
        low=0,
        high=2**20,
        halves=WORKER,
    )
    give_up_after_s: float = number(
        3600.0,
        "seconds after which failures count although nothing else succeeds; 0: at once",
        low=0,
        high=86400 * 30,
        halves=WORKER,
    )
    backoff_base_s: float = number(
        1.0,
        "upper bound of the wait before the second attempt; doubles from there",
        low=0.001,
        high=3600,
        halves=WORKER,
    )
    backoff_max_s: float = number(
        300.0, "upper bound of any wait between attempts", low=0.001, high=86400, halves=WORKER
    )
    lease_ttl_s: float = number(
        10.0,
        "seconds after which a silent worker's partitions pass to others",
        low=0.5,
        high=600,
        halves=WORKER,
    )
    late: Literal["deliver", "skip"] = one_of(
        "deliver",
        "skip",
        doc="skip: count late notifications as handled without a call",
        halves=WORKER,
    )
    history: Literal["outcomes", "accepted"] = one_of(
        "outcomes",
        "accepted",
        doc="what is remembered of a command: also what became of each status, or only when it was "
        "accepted, which saves a write for each outcome",
        halves=WORKER,
    )
    dead_max_entries: int = number(
        100_000,
        "dead letters per partition; a full one holds its devices",
        low=1,
        high=10**8,
        halves=WORKER,
    )
    window_max_entries: int = number(
        4096, "entries a worker has fetched and not settled", low=16, high=10**6, halves=WORKER
    )
    window_max_bytes: int = number(
        16 * 2**20,
        "bytes a worker has fetched and not settled; slow deliveries come on top",
        low=2**16,
        high=2**34,
        halves=WORKER,
    )
