"""The platform's part of the protocol: a device's next callback only after the last got its 200.

Owns order, pace and repeating. The HTTP client is given to it; so is what to do with each answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from bridge.backoff import full_jitter_s
from bridge.cli.sending.traffic import Callback

# Callbacks in memory that wait for their turn; beyond, no more are made until some are answered.
MAX_WAITING: Final = 100_000
_FEEDS_PER_TURN: Final = 64  # then others get the event loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How one attempt ended. `code` is the HTTP status, or 0 with `error` saying what happened."""

    code: int
    error: str = ""
    sent_at_s: float
    duration_s: float

    @property
    def is_ok(self) -> bool:
        """Whether it was the 200 that the platform waits for."""
        return self.code == 200

    @property
    def label(self) -> str:
        """The code or the error, for counting."""
        return self.error or str(self.code)


Post = Callable[[bytes], Awaitable[Answer]]
OnAnswer = Callable[[Callback, int, Answer], None]
"""Called with the callback, the number of the attempt (from 1) and its answer."""


@dataclass(slots=True)
class _Device:
    waiting: deque[Callback] = field(default_factory=deque)
    attempt: int = 0
    first_tried_s: float = 0.0


class Sender:
    """Sends all of `traffic`; `run` returns when each got its 200, or when there is no hope.

    `rate_per_s` None: as fast as answers come, `concurrency` at a time. Else callbacks fall due at
    that pace, whatever the answers. No hope: `give_up_s` without a single 200 although something
    was tried all that time.
    """

    def __init__(
        self,
        post: Post,
        traffic: Iterable[Callback],
        *,
        on_answer: OnAnswer,
        rate_per_s: float | None = None,
        concurrency: int = 64,
        give_up_s: float = 30.0,
        backoff_base_s: float = 0.1,
        backoff_max_s: float = 5.0,
    ) -> None:
        self._post = post
        self._traffic = traffic
        self._on_answer = on_answer
        self._rate_per_s = rate_per_s
        self._concurrency = concurrency
        self._give_up_s = give_up_s
        self._backoff_base_s = backoff_base_s
        self._backoff_max_s = backoff_max_s
        self._devices: dict[str, _Device] = {}
        self._ready: asyncio.Queue[_Device] = asyncio.Queue()
        self._has_room = asyncio.Event()
        self._over = asyncio.Event()
        self._waiting = 0
        self._all_fed = False
        self._last_ok_s = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Sends until done, hopeless, or `stop` is set."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._feed()), group.create_task(self._end_when(stop))]
            tasks += [group.create_task(self._send()) for _ in range(self._concurrency)]
            await self._over.wait()
            for task in tasks:
                task.cancel()

    async def _end_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._over.set()

    async def _feed(self) -> None:
        start_s = asyncio.get_running_loop().time()
        for number, callback in enumerate(self._traffic):
            await self._due(number, start_s)
            self._waiting += 1
            device = self._devices.setdefault(callback.device, _Device())
            device.waiting.append(callback)
            if len(device.waiting) == 1:
                self._ready.put_nowait(device)
        self._all_fed = True
        self._end_if_done()

    async def _due(self, number: int, start_s: float) -> None:
        """Returns when callback `number` may go to its device."""
        if self._waiting >= MAX_WAITING:
            self._has_room.clear()
            await self._has_room.wait()
        if self._rate_per_s is not None:
            early_s = start_s + number / self._rate_per_s - asyncio.get_running_loop().time()
            if early_s > 0:
                await asyncio.sleep(early_s)
                return
        if number % _FEEDS_PER_TURN == 0:
            await asyncio.sleep(0)

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            device = await self._ready.get()
            callback = device.waiting[0]
            device.attempt += 1
            if device.attempt == 1:
                device.first_tried_s = loop.time()
            answer = await self._post(callback.body)
            self._on_answer(callback, device.attempt, answer)
            if answer.is_ok:
                self._accepted(device, loop.time())
            else:
                self._repeat(device, loop)

    def _accepted(self, device: _Device, now_s: float) -> None:
        self._last_ok_s = now_s
        device.waiting.popleft()
        device.attempt = 0
        self._waiting -= 1
        self._has_room.set()
        if device.waiting:
            self._ready.put_nowait(device)
        else:
            self._end_if_done()

    def _repeat(self, device: _Device, loop: asyncio.AbstractEventLoop) -> None:
        hopeful_until_s = max(self._last_ok_s, device.first_tried_s) + self._give_up_s
        if loop.time() >= hopeful_until_s:
            self._over.set()
            return
        wait_s = full_jitter_s(
            device.attempt, base_s=self._backoff_base_s, max_s=self._backoff_max_s
        )
        # A device that waits holds no connection.
        loop.call_later(wait_s, self._ready.put_nowait, device)

    def _end_if_done(self) -> None:
        if self._all_fed and self._waiting == 0:
            self._over.set()
