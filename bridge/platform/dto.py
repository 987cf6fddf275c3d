"""A notification as the SDK has it: the documented names, and its getters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.platform.statuses import CommandStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class NBCommandResult:
    """The `result` of a command status notification."""

    resultCode: str
    resultDetail: Any = None

    @property
    def status(self) -> CommandStatus:
        """The normalised `resultCode`."""
        return CommandStatus.of(self.resultCode)

    def getResultCode(self) -> str:
        """The raw code, as in the SDK's DTO."""
        return self.resultCode

    def getResultDetail(self) -> Any:
        """Any JSON value, `None` also where the field was absent; as in the SDK's DTO."""
        return self.resultDetail


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyNBCommandStatusChangedDTO:
    """A command status notification, as the API page describes it.

    `extra` holds the top-level fields the page does not know.
    """

    deviceId: str
    commandId: str
    result: NBCommandResult
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> CommandStatus:
        """The normalised `result.resultCode`."""
        return self.result.status

    def getDeviceId(self) -> str:
        """As in the SDK's DTO."""
        return self.deviceId

    def getCommandId(self) -> str:
        """As in the SDK's DTO."""
        return self.commandId

    def getResult(self) -> NBCommandResult:
        """As in the SDK's DTO."""
        return self.result
