"""TCP connections of tests that are closed at the end, wherever a test leaves them.

The end of a test cancels what still runs. A handler of asyncio's server that is cancelled leaves
its connection open, and the test in which the garbage collector happens to find it fails for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Protocol

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_PASSES_TO_A_HANDLER = 3
"""Of the loop, from a connection that is accepted until its handler has it."""


class Handler(Protocol):
    """What is done with a connection; when it returns, the connection is closed."""

    def __call__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Coroutine[object, object, None]: ...


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    """Listens on a free port, which it yields; what a handler raises comes at the end."""
    handlers: set[asyncio.Task[None]] = set()
    writers: set[asyncio.StreamWriter] = set()
    errors: list[Exception] = []

    # A plain function: of a coroutine asyncio makes a task that nobody can wait for.
    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        task = asyncio.create_task(handle(reader, writer))
        handlers.add(task)
        task.add_done_callback(handlers.discard)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except Exception as error:
            errors.append(error)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            writers.discard(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for _ in range(_PASSES_TO_A_HANDLER):
            await asyncio.sleep(0)
        for task in handlers:
            task.cancel()
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*handlers, return_exceptions=True)
        await asyncio.sleep(0)
    if errors:
        raise ExceptionGroup("handlers of a listener failed", errors)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Ends]:
    """A connection to a port of this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
