"""The class that users subclass, and the table of its methods."""

from __future__ import annotations

from typing import Any, Final

from bridge.contract.entries import COMMAND_STATUS_TYPE
from bridge.platform.forms import v5

_COMMAND_STATUS_UPDATE: Final = "handleDeviceCommandStatusUpdate"
METHOD_OF_TYPE: Final = {
    COMMAND_STATUS_TYPE: "handleNBCommandStateChanged",
    "deviceAdded": "handleDeviceAdded",
    "bindDevice": "handleBindDevice",
    "deviceInfoChanged": "handleDeviceInfoChanged",
    "deviceDataChanged": "handleDeviceDataChanged",
    "deviceDatasChanged": "handleDeviceDatasChanged",
    "serviceInfoChanged": "handleServiceInfoChanged",
    "deviceDeleted": "handleDeviceDeleted",
    "messageConfirm": "handleMessageConfirm",
    "commandRsp": "handleCommandRsp",
    "deviceEvent": "handleDeviceEvent",
    "deviceModelAdded": "handleDeviceModelAdded",
    "deviceModelDeleted": "handleDeviceModelDeleted",
    "ruleEvent": "handleRuleEvent",
    "deviceDesiredPropertiesModifyStatusChanged": "handleDeviceDesiredStatusChanged",
    "swUpgradeStateChangeNotify": "handleSwUpgradeStateChanged",
    "swUpgradeResultNotify": "handleSwUpgradeResult",
    "fwUpgradeStateChangeNotify": "handleFwUpgradeStateChanged",
    "fwUpgradeResultNotify": "handleFwUpgradeResult",
    # present-day pushes
    f"{v5.COMMAND_STATUS_RESOURCE}:update": _COMMAND_STATUS_UPDATE,
    v5.PROPERTY_REPORT_TYPE: "handleDevicePropertyReport",
    "device.message:report": "handleDeviceMessageReport",
    "device.message.status:update": "handleDeviceMessageStatusUpdate",
    "device.status:update": "handleDeviceStatusUpdate",
    "device:create": "handleDeviceCreate",
    "device:update": "handleDeviceUpdate",
    "device:delete": "handleDeviceDelete",
    "product:create": "handleProductCreate",
    "product:update": "handleProductUpdate",
    "product:delete": "handleProductDelete",
    "batchtask:update": "handleBatchtaskUpdate",
    # AEP
    "aep:commandResponse": "handleAepCommandResponse",
    "aep:dataReport": "handleAepDataReport",
    "aep:eventReport": "handleAepEventReport",
    "aep:deviceOnlineOfflineReport": "handleAepDeviceOnlineOfflineReport",
}
"""Which method gets which type of notification; the names of the first ones are the SDK's."""

OTHER_METHOD: Final = "handleOtherNotification"
"""Gets every type that has no method above, or whose method the receiver does not override."""


def method_of(type_: str) -> str | None:
    """The method of its own that a type has; whichever its event, a command's status is one."""
    if v5.is_command_status(type_):
        return _COMMAND_STATUS_UPDATE
    return METHOD_OF_TYPE.get(type_)


class PushMessageReceiver:
    """Subclass this and override the methods of the notifications you want.

    Each may be written as `def handleX(self)`, with the body in `request.json`, or as
    `def handleX(self, notification)`; both may be `async`. Returning means handled. A type whose
    method is not overridden is settled without a call.

    Present-day pushes and AEP's have methods of their own. Where these are not overridden, a
    command's status goes to `handleNBCommandStateChanged` and a report of properties to
    `handleDeviceDatasChanged`, in the documented shape: a receiver need not know which form the
    platform writes.

    One instance serves a whole worker process. `setup` and `teardown` may be overridden, sync or
    async; they run once, before the first delivery and after the last.
    """

    def setup(self) -> Any:
        """Runs before the first delivery; an exception keeps the worker from starting."""

    def teardown(self) -> Any:
        """Runs after the last delivery."""

    def handleNBCommandStateChanged(self, *args: Any, **kwargs: Any) -> Any:
        """A command's status changed; `notification` is a `NotifyNBCommandStatusChangedDTO`."""
        raise NotImplementedError

    # The platform's other notifications: `notification` is the body as a dict.

    def handleDeviceAdded(self, *args: Any, **kwargs: Any) -> Any:
        """A device was added."""
        raise NotImplementedError

    def handleBindDevice(self, *args: Any, **kwargs: Any) -> Any:
        """A device connected for the first time and was bound."""
        raise NotImplementedError

    def handleDeviceInfoChanged(self, *args: Any, **kwargs: Any) -> Any:
        """A device's information changed."""
        raise NotImplementedError

    def handleDeviceDataChanged(self, *args: Any, **kwargs: Any) -> Any:
        """A device reported data of one service."""
        raise NotImplementedError

    def handleDeviceDatasChanged(self, *args: Any, **kwargs: Any) -> Any:
        """A device reported data of several services."""
        raise NotImplementedError

    def handleServiceInfoChanged(self, *args: Any, **kwargs: Any) -> Any:
        """A device's service information changed."""
        raise NotImplementedError

    def handleDeviceDeleted(self, *args: Any, **kwargs: Any) -> Any:
        """A device was deleted."""
        raise NotImplementedError

    def handleMessageConfirm(self, *args: Any, **kwargs: Any) -> Any:
        """A gateway confirmed a message."""
        raise NotImplementedError

    def handleCommandRsp(self, *args: Any, **kwargs: Any) -> Any:
        """A gateway answered a command."""
        raise NotImplementedError

    def handleDeviceEvent(self, *args: Any, **kwargs: Any) -> Any:
        """A device reported an event."""
        raise NotImplementedError

    def handleDeviceModelAdded(self, *args: Any, **kwargs: Any) -> Any:
        """A device model was added."""
        raise NotImplementedError

    def handleDeviceModelDeleted(self, *args: Any, **kwargs: Any) -> Any:
        """A device model was deleted."""
        raise NotImplementedError

    def handleRuleEvent(self, *args: Any, **kwargs: Any) -> Any:
        """A rule fired."""
        raise NotImplementedError

    def handleDeviceDesiredStatusChanged(self, *args: Any, **kwargs: Any) -> Any:
        """The status of a change to a device's desired properties changed."""
        raise NotImplementedError

    def handleSwUpgradeStateChanged(self, *args: Any, **kwargs: Any) -> Any:
        """The state of a software upgrade changed."""
        raise NotImplementedError

    def handleSwUpgradeResult(self, *args: Any, **kwargs: Any) -> Any:
        """A software upgrade ended."""
        raise NotImplementedError

    def handleFwUpgradeStateChanged(self, *args: Any, **kwargs: Any) -> Any:
        """The state of a firmware upgrade changed."""
        raise NotImplementedError

    def handleFwUpgradeResult(self, *args: Any, **kwargs: Any) -> Any:
        """A firmware upgrade ended."""
        raise NotImplementedError

    # Present-day pushes: `notification` is the whole push as a dict, with `resource`, `event` and
    # `notify_data`.

    def handleDeviceCommandStatusUpdate(self, *args: Any, **kwargs: Any) -> Any:
        """A command's status changed (`device.command.status`)."""
        raise NotImplementedError

    def handleDevicePropertyReport(self, *args: Any, **kwargs: Any) -> Any:
        """A device reported properties (`device.property`)."""
        raise NotImplementedError

    def handleDeviceMessageReport(self, *args: Any, **kwargs: Any) -> Any:
        """A device sent a message (`device.message`)."""
        raise NotImplementedError

    def handleDeviceMessageStatusUpdate(self, *args: Any, **kwargs: Any) -> Any:
        """The status of a message to a device changed (`device.message.status`)."""
        raise NotImplementedError

    def handleDeviceStatusUpdate(self, *args: Any, **kwargs: Any) -> Any:
        """A device went on or off line (`device.status`)."""
        raise NotImplementedError

    def handleDeviceCreate(self, *args: Any, **kwargs: Any) -> Any:
        """A device was added (`device`)."""
        raise NotImplementedError

    def handleDeviceUpdate(self, *args: Any, **kwargs: Any) -> Any:
        """A device was changed (`device`)."""
        raise NotImplementedError

    def handleDeviceDelete(self, *args: Any, **kwargs: Any) -> Any:
        """A device was deleted (`device`)."""
        raise NotImplementedError

    def handleProductCreate(self, *args: Any, **kwargs: Any) -> Any:
        """A product was added (`product`)."""
        raise NotImplementedError

    def handleProductUpdate(self, *args: Any, **kwargs: Any) -> Any:
        """A product was changed (`product`)."""
        raise NotImplementedError

    def handleProductDelete(self, *args: Any, **kwargs: Any) -> Any:
        """A product was deleted (`product`)."""
        raise NotImplementedError

    def handleBatchtaskUpdate(self, *args: Any, **kwargs: Any) -> Any:
        """The status of a batch task changed (`batchtask`); it names no device."""
        raise NotImplementedError

    # AEP: `notification` is the body as a dict.

    def handleAepCommandResponse(self, *args: Any, **kwargs: Any) -> Any:
        """A command's status changed (`commandResponse`)."""
        raise NotImplementedError

    def handleAepDataReport(self, *args: Any, **kwargs: Any) -> Any:
        """A device reported data (`dataReport`)."""
        raise NotImplementedError

    def handleAepEventReport(self, *args: Any, **kwargs: Any) -> Any:
        """A device reported an event (`eventReport`)."""
        raise NotImplementedError

    def handleAepDeviceOnlineOfflineReport(self, *args: Any, **kwargs: Any) -> Any:
        """A device went on or off line (`deviceOnlineOfflineReport`)."""
        raise NotImplementedError

    def handleOtherNotification(self, *args: Any, **kwargs: Any) -> Any:
        """Any type without an overridden method of its own; `delivery.type` says which."""
        raise NotImplementedError
