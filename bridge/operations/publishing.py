"""A publisher for commands that do what an ingress does."""

from __future__ import annotations

from bridge.operations.namespace import Namespace
from bridge.outbox.publisher import Publisher
from bridge.settings import Settings


def publisher_for(connected: Namespace, settings: Settings) -> Publisher:
    """With the limits of the settings, which should be those of the ingresses."""
    return Publisher(
        connected.link,
        connected.keys,
        partitions=connected.partitions,
        dedupe_window_s=settings.dedupe_window_s,
        ledger_max_records=settings.ledger_max_records,
        quarantine_max_entries=settings.quarantine_max_entries,
    )
