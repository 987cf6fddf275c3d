"""The class that users subclass, and the table of its methods."""

from __future__ import annotations

from typing import Any, Final

from bridge.contract import COMMAND_STATUS_TYPE

METHOD_OF_TYPE: Final = {COMMAND_STATUS_TYPE: "handleNBCommandStateChanged"}
"""Which method gets which type of notification."""


class PushMessageReceiver:
    """Subclass this and override `handleNBCommandStateChanged`.

    One instance serves a whole worker process. `setup` and `teardown` may be overridden, sync or
    async; they run once, before the first delivery and after the last.
    """

    def setup(self) -> Any:
        """Runs before the first delivery; an exception keeps the worker from starting."""

    def teardown(self) -> Any:
        """Runs after the last delivery."""

    def handleNBCommandStateChanged(self, *args: Any, **kwargs: Any) -> Any:
        """Called for each command status notification, in order per device.

        Override it as `def handleNBCommandStateChanged(self)`, with the body in `request.json`,
        or as `def handleNBCommandStateChanged(self, notification)` with a
        `NotifyNBCommandStatusChangedDTO`; both may be `async`. Returning means handled.
        """
        raise NotImplementedError
