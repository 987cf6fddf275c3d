"""The class that users subclass, and the table of its methods."""

from __future__ import annotations

from typing import Any, Final

from bridge.contract.entries import COMMAND_STATUS_TYPE

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
}
"""Which method gets which type of notification; the names are the SDK's."""

OTHER_METHOD: Final = "handleOtherNotification"
"""Gets every type that has no method above, or whose method the receiver does not override."""


class PushMessageReceiver:
    """Subclass this and override the methods of the notifications you want.

    Each may be written as `def handleX(self)`, with the body in `request.json`, or as
    `def handleX(self, notification)`; both may be `async`. Returning means handled. A type whose
    method is not overridden is settled without a call.

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

    def handleOtherNotification(self, *args: Any, **kwargs: Any) -> Any:
        """Any type without an overridden method of its own; `delivery.type` says which."""
        raise NotImplementedError
