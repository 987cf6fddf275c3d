"""A receiver that makes a worker use all it may need of Redis: it retries, rejects and handles."""

from __future__ import annotations

from consumers import PushMessageReceiver, Reject, Retry, delivery, request

RECEIVER = f"{__file__}:EveryOutcome"
_SEEN: set[str] = set()


class EveryOutcome(PushMessageReceiver):
    """Each notification is tried twice; then a SENT becomes a dead letter."""

    def handleNBCommandStateChanged(self) -> None:
        if delivery.notification_id not in _SEEN:
            _SEEN.add(delivery.notification_id)
            raise Retry(after_s=0)
        if request.json["result"]["resultCode"] == "SENT":
            raise Reject("for a dead letter")
