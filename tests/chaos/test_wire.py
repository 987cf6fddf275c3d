"""The wire does what networks do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from waiting import wait_until
from wire import Wire


class Listener:
    """Answers every line with itself, and remembers in which order they came."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self.lines.append(line)
                writer.write(line)
        writer.close()


@pytest.fixture
async def listener() -> Listener:
    return Listener()


@pytest.fixture
async def wire(listener: Listener) -> AsyncIterator[Wire]:
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0)
    it = Wire(server.sockets[0].getsockname()[1])
    await it.start()
    yield it
    await it.stop()
    server.close()


async def connect(wire: Wire) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = int(wire.url.rpartition(":")[2].partition("/")[0])
    return await asyncio.open_connection("127.0.0.1", port)


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Whether the connection ends without another answer."""
    try:
        return await reader.readline() == b""
    except ConnectionError:
        return True


async def exchange(wire: Wire, line: bytes) -> bytes:
    reader, writer = await connect(wire)
    writer.write(line)
    answer = await reader.readline()
    writer.close()
    return answer


async def test_it_carries_both_ways(wire: Wire) -> None:
    assert await exchange(wire, b"one\n") == b"one\n"


async def test_what_was_given_up_arrives_after_what_was_sent_later(
    wire: Wire, listener: Listener
) -> None:
    reader, writer = await connect(wire)
    writer.write(b"first\n")
    await reader.readline()
    wire.strand(0.3)
    writer.write(b"stranded\n")
    writer.close()
    assert await exchange(wire, b"later\n") == b"later\n"
    await wait_until(lambda: len(listener.lines) == 3, "what was stranded")
    assert listener.lines == [b"first\n", b"later\n", b"stranded\n"]


async def test_an_answer_is_lost_although_the_request_arrived(
    wire: Wire, listener: Listener
) -> None:
    reader, writer = await connect(wire)
    writer.write(b"one\n")
    await reader.readline()
    wire.cut_answers()
    writer.write(b"two\n")
    assert await is_closed(reader)
    writer.close()
    assert listener.lines == [b"one\n", b"two\n"]


async def test_a_cut_ends_all_connections_but_not_new_ones(wire: Wire) -> None:
    reader, writer = await connect(wire)
    writer.write(b"one\n")
    await reader.readline()
    wire.cut()
    assert await is_closed(reader)
    writer.close()
    assert await exchange(wire, b"two\n") == b"two\n"


async def test_nothing_passes_a_black_hole_until_it_closes(wire: Wire, listener: Listener) -> None:
    wire.is_open.clear()
    waiting = asyncio.create_task(exchange(wire, b"one\n"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.2)
    assert listener.lines == []
    wire.is_open.set()
    assert await waiting == b"one\n"
