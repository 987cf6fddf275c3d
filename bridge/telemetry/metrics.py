"""Every Prometheus metric of both halves, in one place. Labels are bounded: no device, no command.

Conventions: base units in the name, `_total` for counters, timestamps as epoch seconds
(https://prometheus.io/docs/practices/naming/).
"""

from __future__ import annotations

import math
import platform
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from bridge import __version__
from bridge.telemetry.histogram import Durations

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
registry: Final = CollectorRegistry()
ProcessCollector(registry=registry)

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_SLOW: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


def _counter(name: str, doc: str, *labels: str) -> Counter:
    return Counter(f"nb_bridge_{name}", doc, labels, registry=registry)


def _gauge(name: str, doc: str, *labels: str) -> Gauge:
    return Gauge(f"nb_bridge_{name}", doc, labels, registry=registry)


def _histogram(name: str, doc: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"nb_bridge_{name}", doc, labels, buckets=buckets, registry=registry)


def _durations(name: str, doc: str, buckets: tuple[float, ...], *labels: str) -> Durations:
    """For what is observed at every request or delivery."""
    return Durations(f"nb_bridge_{name}", doc, buckets, *labels, registry=registry)


# --- both halves
build_info = _gauge("build_info", "Always 1; the labels say what runs.", "version", "python")
build_info.labels(__version__, platform.python_version()).set(1)
redis_up = _gauge("redis_up", "1 while Redis does what is needed, else 0.")
redis_errors = _counter("redis_errors", "Round trips to Redis that failed.")

# --- ingress
callbacks = _counter("callbacks", "Callbacks answered.", "outcome", "code")
callback_duration = _durations(
    "callback_duration_seconds", "From a callback's arrival to its answer.", _FAST
)
consecutive_failures = _gauge(
    "consecutive_failures", "Answers other than 200 in a row; the platform block-lists at 10."
)
last_callback = _gauge("last_callback_timestamp_seconds", "When the last callback arrived.")
batch_size = _histogram(
    "publish_batch_size", "Notifications published per round trip.", (1, 2, 5, 10, 25, 50, 100, 250)
)
quarantined = _counter("quarantined", "Bodies put into quarantine.", "reason")
quarantine_dropped = _counter("quarantine_dropped", "Oldest bodies dropped from quarantine.")
access_refused = _counter(
    "access_refused", "Callers that were refused, or would have been (mode log).", "reason", "mode"
)
tls_reloads = _counter("tls_reloads", "Certificates read again, by result.", "result")
tls_expiry = _gauge(
    "tls_certificate_expiry_timestamp_seconds",
    "When the certificate in use ends; +Inf without TLS.",
)
tls_expiry.set(float("inf"))
direct_path = _gauge(
    "direct_path_open", "1 while callbacks go straight to Redis, 0 while they are spooled."
)
direct_path.set(1)  # here and below: a worker shows it, too, and 0 would mean trouble
direct_path_changes = _counter("direct_path_changes", "Openings and closings.", "change")
spool_entries = _gauge("spool_entries", "Records on disk that Redis does not have yet.")
spool_bytes = _gauge("spool_bytes", "Size of this process's spool files, logs included.")
spool_max_bytes = _gauge("spool_max_bytes", "Size at which callbacks get 503.")
spool_oldest = _gauge(
    "spool_oldest_timestamp_seconds", "When the oldest record on disk arrived; 0 without any."
)
spool_able = _gauge("spool_able", "1 while the spool takes records, 0 while it is full or broken.")
spool_able.set(1)
spool_aside = _gauge("spool_set_aside", "Rows set aside because they cannot be published.")
spool_damaged = _counter("spool_damaged_files", "Spool files put away as damaged.")
spool_adopted = _counter("spool_adopted_files", "Spool files taken over from dead processes.")
publish_refused = _gauge(
    "publish_refused_lanes",
    "Devices, and partitions as a whole, whose records wait in the spool since Redis refuses them.",
)
spool_removed = _counter("spool_removed_files", "Spool files that were removed below us.")
spool_commit_duration = _histogram(
    "spool_commit_duration_seconds", "Time a commit to the spool took, disk sync included.", _FAST
)
spool_drained = _counter("spool_drained", "Records brought from the spool to Redis.")
backlog = _gauge(
    "backlog_entries",
    "Entries of a partition a group has not handled, parked ones too.",
    "group",
    "partition",
)
oldest_unhandled = _gauge(
    "oldest_unhandled_timestamp_seconds",
    "When the oldest entry a group has not handled was published; 0 without any.",
    "group",
)
redis_memory_used = _gauge("redis_memory_used_ratio", "Of maxmemory; 0 without a limit.")
redis_evicts = _gauge(
    "redis_evicts", "1 while a full Redis would throw entries away, else 0; NaN: not known."
)
redis_evicts.set(math.nan)
redis_persists = _gauge(
    "redis_persists", "1 while Redis keeps an append-only file, else 0; NaN: not known."
)
redis_persists.set(math.nan)
log_lines_lost = _counter("log_lines_lost", "Log lines that stderr did not take.")
connections = _gauge("connections", "Open connections of the public listener, handshakes included.")
connections_refused = _counter("connections_refused", "Connections closed at MAX_CONNECTIONS.")
handshakes_failed = _counter(
    "handshakes_failed", "Connections whose TLS handshake or PROXY header failed."
)
slow_heads = _counter("slow_heads", "Connections closed because a request head took too long.")
slow_reads = _counter(
    "slow_reads",
    "Connections closed because answers were not read: in time, or by too many callers.",
)
ledger_rotations = _counter("ledger_rotations", "Ledger pages turned, by cause.", "cause")

# --- worker
deliveries = _counter("deliveries", "Deliveries by outcome.", "group", "outcome")
handler_duration = _durations("handler_duration_seconds", "Time a handler took.", _SLOW, "group")
dead_letters = _gauge("dead_letters", "Dead letters of the partitions owned.", "group")
dead_lettered = _counter("dead_lettered", "Notifications given up, by reason.", "group", "reason")
group_absent = _gauge(
    "group_absent", "1 while a group has had no worker for GROUP_ABSENT_AFTER_S.", "group"
)
groups_lapsed = _counter(
    "groups_lapsed", "Groups given up: absent, and MAX_BACKLOG entries behind.", "group"
)
leases_owned = _gauge("leases_owned", "Partitions this worker owns.", "group")
lease_changes = _counter("lease_changes", "Leases acquired, released and lost.", "group", "change")
paused = _gauge("group_paused", "1 while an operator paused the group.", "group")
fenced_writes = _counter("fenced_writes", "Writes refused because the lease was lost.", "group")
in_flight = _gauge("in_flight_deliveries", "Deliveries running now.", "group")
window_entries = _gauge("window_entries", "Entries fetched and not settled.", "group")
window_bytes = _gauge("window_bytes", "Bytes fetched and not settled.", "group")
lanes = _gauge("lanes", "Devices with entries in the window.", "group")
waiting_lanes = _gauge("waiting_lanes", "Devices whose retry waits in the window.", "group")
overdue_handlers = _gauge(
    "overdue_handlers", "Handlers beyond HANDLER_TIMEOUT_S that still run.", "group"
)
stuck_handlers = _gauge(
    "stuck_handlers", "Handlers beyond twice HANDLER_TIMEOUT_S, which are given up.", "group"
)
worker_replacements = _counter(
    "worker_replacements", "Processes that took the place of another, by reason.", "group", "reason"
)
sandbox_deliveries = _counter(
    "sandbox_deliveries",
    "Deliveries of suspects, by how they ended: returned, died, stuck.",
    "group",
    "ending",
)
loop_blocked = _counter(
    "loop_blocked_seconds", "Seconds that a handler kept the event loop from going on.", "group"
)
parked_entries = _gauge("parked_entries", "Messages in parked lists.", "group")
parked_devices = _gauge("parked_devices", "Devices whose messages are parked.", "group")
circuit_open = _gauge(
    "circuit_open", "1 while nothing succeeds and deliveries are only probed.", "group"
)
brake_on = _gauge("brake_on", "Deprecated: circuit_open.", "group")
trimmed = _counter("trimmed_entries", "Entries removed after every group handled them.")


def render() -> bytes:
    """The exposition text of every metric."""
    return generate_latest(registry)


def answers_by_code() -> dict[str, int]:
    """How many callbacks this process has answered with each code."""
    counts: dict[str, int] = {}
    for family in callbacks.collect():
        for sample in family.samples:
            code = sample.labels.get("code")
            if code and sample.name.endswith("_total") and sample.value:
                counts[code] = counts.get(code, 0) + int(sample.value)
    return counts
