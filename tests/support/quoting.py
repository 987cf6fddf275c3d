"""A receiver that fails in every way there is, for ever, and quotes the payload each time.

What it does with a notification is said by the word in `resultDetail["do"]`, or by `do` beside the
`notifyType` of the platform's other notifications.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from consumers import PushMessageReceiver, Reject, Retry, request

RECEIVER = f"{__file__}:Quoting"
WAYS = ("raise", "reject", "retry", "exit", "stop", "overdue", "crash")


class Quoting(PushMessageReceiver):
    """Async for the status of commands, sync for everything else."""

    async def handleNBCommandStateChanged(self) -> None:
        do = request.json["result"]["resultDetail"]["do"]
        if do == "overdue":
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError as error:
                raise ValueError(_quote()) from error
        _fail(do)

    def handleDeviceDataChanged(self) -> None:
        do = request.json["do"]
        if do == "overdue":
            time.sleep(1)  # cannot be cancelled; longer than HANDLER_TIMEOUT_S
            raise ValueError(_quote())
        _fail(do)


def _quote() -> str:
    return f"cannot handle {request.data!r}"


def _fail(do: str) -> None:
    if do == "raise":
        raise ValueError(_quote())
    if do == "reject":
        raise Reject(_quote())
    if do == "retry":
        raise Retry(_quote(), after_s=0.01)
    if do == "exit":
        sys.exit(_quote())
    if do == "stop":
        raise StopIteration(_quote())
    if do == "crash":
        os._exit(7)
