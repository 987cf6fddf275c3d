"""Prints every notification: the shortest receiver there is, and what `nb-bridge dev` starts with.

nb-bridge worker --receiver consumers.examples.log:LogReceiver
"""

from __future__ import annotations

from consumers import PushMessageReceiver, delivery, request


class LogReceiver(PushMessageReceiver):
    """A line per notification on stdout."""

    def handleNBCommandStateChanged(self) -> None:
        """The documented form: no argument, the callback is `request.json`."""
        callback = request.json
        result = callback["result"]
        late = ", late: a later status came before" if delivery.late else ""
        print(
            f"device {callback['deviceId']}: command {callback['commandId']} "
            f"is {result['resultCode']}, detail {result.get('resultDetail')!r}{late}\n",
            end="",  # text and line end in one write: sync handlers run in several threads
            flush=True,
        )
