"""The platform as an ingress meets it: many devices, each of which reports in order, and repeats.

Every command passes SENT, DELIVERED, SUCCESSFUL; a callback that is not answered 200 is sent again
before the next one of its device. What was answered how, and how long it took, is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from support.ingresses import body

CODES = ("SENT", "DELIVERED", "SUCCESSFUL")


@dataclass
class Platform:
    """Sends callbacks of `devices` devices to `url`, together about `rate` a second."""

    url: str
    devices: int = 20
    rate: float = 200.0
    prefix: str = "c"
    headers: dict[str, str] = field(default_factory=dict)
    write: Callable[[str, str, str], bytes] = body
    """Makes a body of device, command and code."""
    answers: Counter[int | str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    promised: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    """Per device what was answered 200, in order: commandId and resultCode."""
    repeated: set[tuple[str, str, str]] = field(default_factory=set)
    """Device, command and code of what was sent more than once."""
    _is_over: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Platform:
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector)
        self._tasks = [
            asyncio.create_task(self._device(f"d{number}")) for number in range(self.devices)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.finish()
        await self._session.close()

    async def finish(self) -> None:
        """Every device gets its last callback answered and stops."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    @property
    def count(self) -> int:
        """Callbacks answered 200."""
        return sum(map(len, self.promised.values()))

    async def _device(self, device: str) -> None:
        pause_s = self.devices / self.rate
        number = 0
        due_s = time.monotonic()
        while not self._is_over:
            command, code = f"{self.prefix}{number // 3}", CODES[number % 3]
            await self._until_answered(device, command, code)
            self.promised[device].append((command, code))
            number += 1
            due_s = max(due_s + pause_s, time.monotonic() - 1)
            await asyncio.sleep(max(0, due_s - time.monotonic()))

    async def _until_answered(self, device: str, command: str, code: str) -> None:
        while True:
            began_s = time.monotonic()
            try:
                async with self._session.post(
                    self.url, data=self.write(device, command, code), headers=self.headers
                ) as response:
                    await response.read()
                    answer: int | str = response.status
            except aiohttp.ClientError as error:
                answer = type(error).__name__
            self.answers[answer] += 1
            if answer == 200:
                self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
                return
            self.repeated.add((device, command, code))
            await asyncio.sleep(0.05)
