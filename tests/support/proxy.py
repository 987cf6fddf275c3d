"""A TCP proxy between an ingress and its Redis: slow, or cutting what is answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.tcp import connected, listening


class Proxy:
    """Forwards one port to another; the attributes may be changed while it runs."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.url = ""
        self.reply_delay_s = 0.0
        """How long every piece of an answer is kept back."""
        self.cut_replies = 0
        """As many answers are not passed on; the connection is cut instead."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Listens on a free port until the end."""
        async with listening(self._serve) as port:
            self.url = f"redis://127.0.0.1:{port}/0"
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            async with connected(self._to) as (there_reader, there_writer):
                back = asyncio.create_task(self._pass_back(there_reader, writer))
                try:
                    while data := await reader.read(65536):
                        there_writer.write(data)
                        await there_writer.drain()
                finally:
                    back.cancel()
                    await asyncio.gather(back, return_exceptions=True)

    async def _pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.cut_replies and not data.startswith(b"+"):
                self.cut_replies -= 1
                break
            if self.reply_delay_s:
                await asyncio.sleep(self.reply_delay_s)
            writer.write(data)
        writer.close()
