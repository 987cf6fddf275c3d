"""What an upgrade sends besides commands' statuses: pushes of forms that the old release takes, and
of one that it does not know.

Each has a number of its own, which the receivers write down. An old ingress quarantines what it
does not know: that is kept, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Collection
from typing import Final

import aiohttp

from case import Violation
from evidence import Appended, Written
from stand import Stand
from upgrade_receiver import PUSHES

PREFIX: Final = "push-"
SOME: Final = 20
PAUSE_S: Final = 0.05
WAIT_BOUND_S: Final = 180.0
_NUMBER: Final = re.compile(rb'"number": ?(\d+)')


class Pushes:
    """One sender, which sends each of its own until it is answered 200."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._has_all_forms = self._is_over = False
        self._task: asyncio.Task[None] | None = None
        self._promised: dict[int, bool] = {}
        """Numbers that were answered 200, and whether the old release would know them."""
        self._spooled: dict[int, str] = {}
        """Those that came while Redis was away, and to whom."""
        self.quarantined: set[int] = set()

    async def start(self) -> None:
        """Begins to send."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15))
        self._task = asyncio.create_task(self._send())

    async def finish(self) -> None:
        """Returns when the last one is answered."""
        self._is_over = True
        if self._task is not None:
            await self._task

    async def close(self) -> None:
        """Ends it at once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._session.close()

    def take_all_forms(self) -> None:
        """From now on every second one is of a form that only the new release knows."""
        self._has_all_forms = True

    def take_documented_forms(self) -> None:
        """From now on all are of forms that both know."""
        self._has_all_forms = False

    async def some(self) -> None:
        """Returns when some more were answered 200."""
        until = len(self._promised) + SOME
        async with asyncio.timeout(WAIT_BOUND_S):
            while len(self._promised) < until:
                await asyncio.sleep(0.05)

    async def _send(self) -> None:
        number = 0
        while not self._is_over:
            number += 1
            is_known = not self._has_all_forms or bool(number % 2)
            to = sorted(self._stand.ingresses)[number // 2 % 2]
            body = _documented(number) if is_known else _present_day(number)
            while not await self._is_answered(to, body):
                await asyncio.sleep(0.1)
            self._promised[number] = is_known
            if not self._stand.server.is_running():
                self._spooled[number] = to
            await asyncio.sleep(PAUSE_S)

    async def _is_answered(self, to: str, body: object) -> bool:
        url = self._stand.url(to).removesuffix("/cmd")
        try:
            async with self._session.post(url, json=body) as response:
                await response.read()
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    # --- what became of them

    def handled(self, group: str) -> set[int]:
        """The numbers that a group's receivers wrote down."""
        lines = [
            line.split()
            for file in self._stand.folder.glob(f"*{PUSHES}")
            for line in file.read_text().splitlines()
        ]
        return {int(number) for name, number in lines if name == group}

    async def all_handled(self, groups: Collection[str], *, but_spooled_by: str = "") -> None:
        """Returns when every group has handled what it gets; or after a while.

        But what one ingress had to spool may be read by another release: it is not waited for.
        """
        spooled = {number for number, by in self._spooled.items() if by == but_spooled_by}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_BOUND_S):
                while await self._unkept_in(groups, set(self._promised) - spooled):
                    await asyncio.sleep(0.2)

    async def unkept(self, groups: Collection[str]) -> list[Violation]:
        """What was answered 200, and is neither handled in every group nor quarantined."""
        return await self._unkept_in(groups, set(self._promised))

    async def _unkept_in(self, groups: Collection[str], numbers: set[int]) -> list[Violation]:
        bodies = await self._stand.control.xrange(self._stand.keys.quarantine)
        self.quarantined = {
            int(found[1])
            for _, fields in bodies
            for value in fields.values()
            if (found := _NUMBER.search(value)) is not None
        }
        return [
            Violation("pushes_are_kept", f"{number} was not handled in {group}")
            for group in sorted(groups)
            for number in sorted(numbers - self.handled(group) - self.quarantined)
        ]

    def figures(self) -> dict[str, object]:
        """For the report."""
        unknown = [number for number, is_known in self._promised.items() if not is_known]
        return {
            "pushes answered 200": len(self._promised),
            "of them of a form that only one release knows": len(unknown),
            "of these quarantined": len(self.quarantined),
        }

    @staticmethod
    def is_of_push(one: Written) -> bool:
        """Whether an entry is one of these."""
        return isinstance(one, Appended) and one.device.startswith(PREFIX)


def _documented(number: int) -> object:
    return {
        "notifyType": "deviceDataChanged",
        "requestId": f"request-{number}",
        "deviceId": f"{PREFIX}{number % 7}",
        "gatewayId": f"{PREFIX}{number % 7}",
        "service": {"serviceId": "Meter", "serviceType": "Meter", "data": {"number": number},
                    "eventTime": "20260101T000000Z"},
    }  # fmt: skip


def _present_day(number: int) -> object:
    return {
        "resource": "device.property",
        "event": "report",
        "event_time": "20260101T000000Z",
        "request_id": f"request-{number}",
        "notify_data": {
            "header": {"device_id": f"{PREFIX}{number % 7}", "product_id": "p", "app_id": "a"},
            "body": {"services": [{"service_id": "Meter", "properties": {"number": number},
                                   "event_time": "20260101T000000Z"}]},
        },
    }  # fmt: skip
