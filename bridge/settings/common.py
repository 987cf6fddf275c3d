"""The settings of both halves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridge.contract.keys import MAX_PARTITIONS
from bridge.settings.readers import (
    matching,
    number,
    one_of,
    redis_url,
    setting,
    words,
)

MAX_PORT: Final = 65535
MAX_PROCESSES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """A row for each."""

    redis_url: str = redis_url(
        "redis://127.0.0.1:6379/0",
        "Redis or Valkey: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://",
    )
    namespace: str = matching(
        "nbcmd",
        "prefix of every key in Redis; several bridges may share a server under several names",
        r"^[A-Za-z0-9_.:-]{1,64}$",
        "may hold letters, digits and _ . : - only",
    )
    partitions: int = number(
        16,
        "streams that devices are spread over; fixed once the namespace is in use",
        low=1,
        high=MAX_PARTITIONS,
    )
    log_level: str = one_of(
        "debug", "info", "warning", "error", default="info", doc="least severe log line shown"
    )
    log_format: str = one_of(
        "auto",
        "console",
        "json",
        doc="log lines for people or for machines; auto: console on a terminal, else json",
    )
    grace_s: float = number(25.0, "seconds to stop in, DRAIN_DELAY_S included", low=1, high=3600)
    processes: int = number(
        1,
        "how many processes share the work; 0: as many as there are cores",
        low=0,
        high=MAX_PROCESSES,
    )
    admin_host: str = setting(
        "127.0.0.1", "address of the admin listener (/livez /readyz /metrics /status)"
    )
    admin_names: tuple[str, ...] = words(
        "names with a dot by which the admin listener may be called, besides addresses"
    )
    admin_port: int | None = number(
        None,
        "port of the admin listener, of the first of several PROCESSES; 0: any free one",
        low=0,
        high=MAX_PORT,
        default_text="8081 ingress, 8082 worker",
    )
