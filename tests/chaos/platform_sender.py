"""The platform of a run: devices that report, repeat what was not answered 200, and sometimes more.

Writes down every request with its answer. A device usually talks to one ingress; some roam.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Final

import aiohttp

import evidence
import traffic
from evidence import Attempt
from stand import Stand
from traffic import Callback

PATIENCE_S: Final = 15.0  # the platform's
REPEAT_S: Final = 0.15
ROAMING: Final = 0.2
# Of the notifications answered 200: sent again, in another spelling, as the platform may.
AGAIN: Final = 0.04
# Sent over two connections at once: no order is promised then.
TWINS: Final = 0.04
# Of those not answered 200: given up, as the platform says it does.
DISCARDED: Final = 0.05
# Times as many notifications come from a device that is hot.
HOT: Final = 20


class Platform:
    """Devices that together send about `rate` notifications a second until `finish`."""

    def __init__(
        self,
        stand: Stand,
        *,
        seed: int,
        devices: int,
        rate: float,
        endings: Mapping[str, int],
        has_hot: bool = False,
        is_gentle: bool = False,
    ) -> None:
        self._stand = stand
        self._seed = seed
        self._devices = [f"d{number:03d}" for number in range(devices)]
        self._pause_s = devices / rate
        self._endings = dict(zip(self._devices, endings.items(), strict=False))
        self._hot = self._devices[-1] if has_hot else None
        self._is_gentle = is_gentle
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []
        self._file = (stand.folder / "sent.jsonl").open("a")
        self.attempts: list[Attempt] = []
        self._answered = 0

    async def start(self) -> None:
        """Begins to send."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=PATIENCE_S),
        )
        self._tasks += [asyncio.create_task(self._report(device)) for device in self._devices]

    @property
    def answered(self) -> int:
        """How many requests were answered 200."""
        return self._answered

    async def finish(self) -> None:
        """Returns when every device has the answer to its last notification."""
        self._is_over = True
        await asyncio.gather(*self._tasks)
        await self.close()

    async def close(self) -> None:
        """Ends it at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()
        self._file.close()

    async def _report(self, device: str) -> None:
        dice = random.Random(f"{self._seed} {device} pace")
        names = sorted(self._stand.ingresses)
        home = None if dice.random() < ROAMING else dice.choice(names)
        is_hot = device == self._hot
        pause_s = self._pause_s / HOT if is_hot else self._pause_s
        ending = self._endings.get(device)
        life = traffic.of_device(
            device, self._seed, ending=ending, is_hot=is_hot, is_gentle=self._is_gentle
        )
        await asyncio.sleep(dice.uniform(0, self._pause_s))
        while not self._is_over:
            sending = [self._send(next(life), home, dice)]
            if dice.random() < TWINS:
                sending.append(self._send(next(life), home, dice))
            await asyncio.gather(*sending)
            await asyncio.sleep(dice.expovariate(1 / pause_s))

    async def _send(self, callback: Callback, home: str | None, dice: random.Random) -> None:
        names = sorted(self._stand.ingresses)
        while not await self._post(callback, home or dice.choice(names), callback.bodies[0]):
            if dice.random() < DISCARDED:
                return
            await asyncio.sleep(REPEAT_S)
        if dice.random() < AGAIN:
            await self._post(callback, dice.choice(names), callback.bodies[1])

    async def _post(self, callback: Callback, to: str, body: bytes) -> bool:
        """One request; whether it was answered 200."""
        address, sent_ns = self._stand.ingresses[to].address, time.monotonic_ns()
        answer, error = 0, ""
        try:
            async with self._session.post(self._stand.url(to), data=body) as response:
                await response.read()
                answer = response.status
        except (aiohttp.ClientError, TimeoutError) as raised:
            error = type(raised).__name__
        attempt = Attempt(
            notification=callback.notification,
            device=callback.device,
            command=callback.command,
            status=callback.status,
            body=traffic.digest(body),
            fate=callback.fate,
            to=address,
            sent_ns=sent_ns,
            answered_ns=time.monotonic_ns(),
            answer=answer,
            error=error,
        )
        self.attempts.append(attempt)
        evidence.append(self._file, attempt)
        self._answered += answer == 200
        return answer == 200
