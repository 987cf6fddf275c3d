"""Somebody who looks, all the time of a soak: a console, its live stream held open, its pages read.

What the ledger says in the end of the last commands is read there, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import aiohttp

from stand import COMMON, Stand
from support.programs import Program
from support.waiting import wait_until

PAGES: Final = ("/", "/workers", "/groups", "/dead", "/quarantine", "/audit", "/settings")
LOOK_S: Final = 1.0
JSON: Final = {"Accept": "application/json"}
PATIENCE_S: Final = 30.0


class Viewer:
    """A console of a stand's own, and one who looks at it."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._tasks: list[asyncio.Task[None]] = []
        self._program: Program | None = None
        self.answers: Counter[str] = Counter()
        """Of pages, by status, or by what went wrong."""
        self.events = 0
        """What the live stream has brought."""

    async def start(self) -> None:
        """Returns when the console listens; from then on somebody looks."""
        environ = {f"NB_BRIDGE_{name}": str(value) for name, value in COMMON.items()}
        environ["NB_BRIDGE_REDIS_URL"] = self._stand.server.url
        folder = self._stand.folder
        self._program = Program(
            "console", "--port", "0", folder=folder, name="console", environ=environ
        )
        await wait_until(lambda: "Ctrl-C ends it" in self._output(folder), "the console")
        self._url = self._output(folder).split()[4].rstrip(",")
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE_S, sock_read=PATIENCE_S)
        self._session = aiohttp.ClientSession(timeout=timeout)
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._read())]

    @staticmethod
    def _output(folder: Path) -> str:
        return (folder / "console.out").read_text()

    @property
    def pid(self) -> int:
        """Of the console."""
        assert self._program is not None
        return self._program.process.pid

    async def stop(self) -> int | None:
        """Looks no more; the console's exit code, if there was one."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._program is None:
            return None
        await self._session.close()
        return await asyncio.to_thread(self._program.stop)

    async def _follow(self) -> None:
        """The live stream, opened again when it has ended, as a browser does."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self._session.get(f"{self._url}/live/overview") as response:
                    async for line in response.content:
                        self.events += line.startswith(b"data:")
            await asyncio.sleep(LOOK_S)

    async def _read(self) -> None:
        for number in itertools.count():
            paths = (*PAGES, f"/devices/{number % 400}", f"/commands/{number % 400}-{number // 40}")
            try:
                async with self._session.get(self._url + paths[number % len(paths)]) as response:
                    await response.read()
                    self.answers[str(response.status)] += 1
            except (aiohttp.ClientError, TimeoutError) as error:
                self.answers[type(error).__name__] += 1
            await asyncio.sleep(LOOK_S)

    def violations(self) -> list[str]:
        """The console has an answer to everything, also while Redis is away."""
        found = [
            f"the console answered {answer} {count} times"
            for answer, count in self.answers.items()
            if answer not in EXPECTED
        ]
        return found if self.events else [*found, "the live stream brought nothing"]

    async def remembered(self, group: str, commands: Iterable[str]) -> list[str]:
        """What the ledger should know of commands that were handled, and does not."""
        found = []
        for command in commands:
            status, text = await self._command(command)
            if status == 200:
                found += without_outcome(command, group, json.loads(text))
            else:
                found.append(f"the console answered {status} to {command}: {text}")
        return found

    async def _command(self, command: str) -> tuple[int, str]:
        """Its page as JSON; asked again where the connection to Redis was an old one."""
        for tries_left in (1, 0):
            url = f"{self._url}/commands/{command}"
            async with self._session.get(url, headers=JSON) as response:
                status, text = response.status, await response.text()
            if status != 503 or not tries_left:
                break
        return status, text


# Redis is away now and then, and nobody knows a command then; of some nothing is known yet.
EXPECTED: Final = frozenset(("200", "404", "503"))


def without_outcome(command: str, group: str, document: dict[str, Any]) -> list[str]:
    """A command, as the console's JSON has it, held against what has become of it."""
    accepted = [one for known in document.get("devices", ()) for one in known["accepted"]]
    if not accepted:
        return [f"the ledger does not know {command}"]
    return [
        f"the ledger does not say when {one['status']} of {command} was handled"
        for one in accepted
        if one["groups"].get(group, {}).get("handled_at_ms") is None
    ]
