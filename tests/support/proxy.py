"""A TCP proxy between an ingress and its Redis: slow, or cutting what is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """Forwards one port to another; the attributes may be changed while it runs."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: set[asyncio.StreamWriter] = set()
        self.url = ""
        self.reply_delay_s = 0.0
        """How long every piece of an answer is kept back."""
        self.cut_replies = 0
        """As many answers are not passed on; the connection is cut instead."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Listens on a free port until the end."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        try:
            yield self
        finally:
            server.close()
            for writer in list(self._open):
                writer.close()
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.close()
            return
        self._open |= {writer, there_writer}
        back = asyncio.create_task(self._pass_back(there_reader, writer))
        try:
            while data := await reader.read(65536):
                there_writer.write(data)
                await there_writer.drain()
        except OSError:
            pass
        finally:
            back.cancel()
            for it in (writer, there_writer):
                it.close()
                self._open.discard(it)

    async def _pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.cut_replies and not data.startswith(b"+"):
                self.cut_replies -= 1
                break
            if self.reply_delay_s:
                await asyncio.sleep(self.reply_delay_s)
            writer.write(data)
        writer.close()
