"""A wire between one program and Redis: a small TCP proxy that delays, holds back and cuts.

It holds back as a network does: what a client sent before it gave up may still arrive, after what
it sent later over another connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import time


class Wire:
    """Forwards one port to another; what is done to it holds until it is undone."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay_s = 0.0
        """How much later every piece arrives, in both directions."""
        self.is_open = asyncio.Event()
        """Cleared: nothing arrives any more, but nothing is closed."""
        self.is_open.set()
        self.url = ""

    async def start(self) -> None:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def stop(self) -> None:
        """Closes everything."""
        if self._server is not None:
            self._server.close()
        self.is_open.set()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

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

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            there = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(self, (reader, writer), there)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


_End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Connection:
    """Two pumps. The way to Redis outlives a client that has gone, for what it still carries."""

    def __init__(self, wire: Wire, here: _End, there: _End) -> None:
        self._wire = wire
        self._here, self._there = here, there
        self.held_until_s = 0.0
        self.loses_answers = False

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
            for _, writer in (self._here, self._there):
                writer.close()

    async def _pump_there(self) -> None:
        with contextlib.suppress(OSError):
            while data := await self._here[0].read(65536):
                await self._travel()
                while (left_s := self.held_until_s - time.monotonic()) > 0:
                    await asyncio.sleep(left_s)
                self._there[1].write(data)
                await self._there[1].drain()

    async def _pump_back(self) -> None:
        with contextlib.suppress(OSError):
            while data := await self._there[0].read(65536):
                if self.loses_answers:
                    break
                await self._travel()
                self._here[1].write(data)
                await self._here[1].drain()
        self.cut()

    async def _travel(self) -> None:
        if self._wire.delay_s:
            await asyncio.sleep(self._wire.delay_s)
        await self._wire.is_open.wait()
