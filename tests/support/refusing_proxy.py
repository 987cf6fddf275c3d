"""A proxy before Redis that answers some commands itself, with an error, as hosted servers do.

It reads requests and replies as RESP, one command after the other, so that answers keep their
places. Everything that it does not refuse passes through unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import hiredis

from support.tcp import connected, listening

WRITES_AND_SCRIPTS = frozenset((b"EVALSHA", b"EVAL", b"SCRIPT", b"XADD", b"XREADGROUP"))

Judge = Callable[[Sequence[bytes]], str | None]
"""The error for a command, without its `-`; `None`: it passes."""


def refusing(names: frozenset[bytes], error: str) -> Judge:
    """Refuses every command of these names."""
    return lambda words: error if words[0].upper() in names else None


class RefusingProxy:
    """`judge` may be changed while it runs."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.url = ""
        self.judge: Judge = lambda _: None
        self.refused = 0
        """How many commands it answered itself."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RefusingProxy]:
        """Listens on a free port until the end."""
        async with listening(self._serve) as port:
            self.url = f"redis://127.0.0.1:{port}/0"
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests = hiredis.Reader()
        with contextlib.suppress(OSError):
            async with connected(self._to) as (there_reader, there_writer):
                while data := await reader.read(65536):
                    requests.feed(data)
                    while (words := requests.gets()) is not False:
                        error = self.judge(words)
                        if error is not None:
                            self.refused += 1
                            writer.write(f"-{error}\r\n".encode())
                            continue
                        there_writer.write(hiredis.pack_command(tuple(words)))
                        await self._pass_reply(there_reader, writer)

    async def _pass_reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        replies = hiredis.Reader()
        while True:
            data = await reader.read(65536)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            writer.write(data)
            replies.feed(data)
            if replies.gets() is not False:
                await writer.drain()
                return
