"""The workers: run the user's `handleNBCommandStateChanged`, in order per device.

What plugin authors import is exported here; the rest of the package is the worker's own.
"""

from bridge.platform.dto import NBCommandResult, NotifyNBCommandStatusChangedDTO
from bridge.platform.statuses import CommandStatus
from consumers.context import delivery, request
from consumers.outcome import Reject, Retry
from consumers.receiver import PushMessageReceiver

__all__ = [
    "CommandStatus",
    "NBCommandResult",
    "NotifyNBCommandStatusChangedDTO",
    "PushMessageReceiver",
    "Reject",
    "Retry",
    "delivery",
    "request",
]
