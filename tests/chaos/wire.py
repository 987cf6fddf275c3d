"""A wire between one program and Redis: a small TCP proxy that delays, holds back and cuts.

It holds back as a network does: what a client sent before it gave up may still arrive, after what
it sent later over another connection. As a hosted server's proxy does, it answers commands itself,
with errors; and it forgets all scripts between two calls of a batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

import resp
from support.tcp import Ends, connected, listening


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the wire answers itself: `error`, without its `-`, to everything or to all but reads."""

    error: str
    is_of_reads_too: bool


class Wire:
    """Forwards one port to another; what is done to it holds until it is undone."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._connections: set[_Connection] = set()
        self._open = contextlib.AsyncExitStack()
        self.delay_s = 0.0
        """How much later every piece arrives, in both directions."""
        self.is_open = asyncio.Event()
        """Cleared: nothing arrives any more, but nothing is closed."""
        self.is_open.set()
        self.refusal: Refusal | None = None
        """Meanwhile commands are answered here, and do not arrive."""
        self.forgets_scripts = False
        """Meanwhile the server is told `SCRIPT FLUSH` after the first call of each batch."""
        self.refused = self.forgotten = 0
        """How often it did either."""
        self.url = ""

    async def start(self) -> None:
        """Listens on a free port."""
        port = await self._open.enter_async_context(listening(self._carry))
        self.url = f"redis://127.0.0.1:{port}/0"

    async def stop(self) -> None:
        """Closes everything."""
        self.is_open.set()
        self.cut()
        await self._open.aclose()

    # --- what can be done to it

    def cut(self) -> None:
        """Breaks every connection there is."""
        for connection in list(self._connections):
            connection.cut()

    def cut_answers(self) -> None:
        """Of every connection there is, the next answer is lost with the connection."""
        for connection in self._connections:
            connection.loses_answers = True

    def strand(self, for_s: float) -> None:
        """What is sent from now on over the connections there are arrives after `for_s`.

        New connections are not affected: so a call that was given up can arrive after later ones.
        """
        until_s = time.monotonic() + for_s
        for connection in self._connections:
            connection.held_until_s = until_s

    # --- connections

    def refuses(self, command: bytes) -> bytes | None:
        """The answer to a command that does not arrive."""
        refusal = self.refusal
        if refusal is None or not (name := resp.name(command)):
            return None
        if name in resp.READS and not refusal.is_of_reads_too:
            return None
        self.refused += 1
        return f"-{refusal.error}\r\n".encode()

    async def forget_scripts(self) -> None:
        """Returns when the server knows no scripts."""
        async with connected(self._to_port) as (reader, writer):
            writer.write(b"SCRIPT FLUSH\r\n")
            await reader.readline()
        self.forgotten += 1

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            async with connected(self._to_port) as there:
                connection = _Connection(self, (reader, writer), there)
                self._connections.add(connection)
                try:
                    await connection.run()
                finally:
                    self._connections.discard(connection)


class _Connection:
    """Two pumps. The way to Redis outlives a client that has gone, for what it still carries."""

    def __init__(self, wire: Wire, here: Ends, there: Ends) -> None:
        self._wire = wire
        self._here, self._there = here, there
        self.held_until_s = 0.0
        self.loses_answers = False
        self._unanswered = 0
        self._is_quiet = asyncio.Event()
        """Everything that arrived is answered."""
        self._is_quiet.set()

    def cut(self) -> None:
        for _, writer in (self._here, self._there):
            writer.transport.abort()

    async def run(self) -> None:
        back = asyncio.create_task(self._pump_back())
        try:
            await self._pump_there()
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)

    async def _pump_there(self) -> None:
        commands = resp.Commands()
        with contextlib.suppress(OSError):
            while data := await self._here[0].read(65536):
                await self._travel()
                while (left_s := self.held_until_s - time.monotonic()) > 0:
                    await asyncio.sleep(left_s)
                await self._send(list(commands.feed(data)))
                await self._there[1].drain()

    async def _send(self, batch: list[bytes]) -> None:
        """Each command to the server, or answered in its place."""
        has_script = False
        for command in batch:
            if self._here[1].is_closing() or self._there[1].is_closing():
                raise ConnectionResetError
            if (answer := self._wire.refuses(command)) is not None:
                await self._is_quiet.wait()
                self._here[1].write(answer)
                continue
            if has_script and self._wire.forgets_scripts:
                await self._is_quiet.wait()
                await self._wire.forget_scripts()
                has_script = False
            has_script = has_script or resp.name(command) == b"EVALSHA"
            self._unanswered += 1
            self._is_quiet.clear()
            self._there[1].write(command)

    async def _pump_back(self) -> None:
        replies = resp.Replies()
        with contextlib.suppress(OSError):
            while data := await self._there[0].read(65536):
                if self.loses_answers:
                    break
                await self._travel()
                self._here[1].write(data)
                await self._here[1].drain()
                self._unanswered -= replies.feed(data)
                if self._unanswered <= 0:
                    self._is_quiet.set()
        self._is_quiet.set()
        self.cut()

    async def _travel(self) -> None:
        if self._wire.delay_s:
            await asyncio.sleep(self._wire.delay_s)
        await self._wire.is_open.wait()
