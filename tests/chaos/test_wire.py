"""The wire does what networks do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import hiredis
import pytest
import redis.asyncio

import resp
from bridge.store.embedded import EmbeddedServer
from support.tcp import Ends, listening
from support.waiting import wait_until
from wire import Refusal, Wire


class Listener:
    """Answers every line with itself, and remembers in which order they came."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self.lines.append(line)
                writer.write(line)


@pytest.fixture
async def listener() -> Listener:
    return Listener()


@pytest.fixture
async def wire(listener: Listener) -> AsyncIterator[Wire]:
    async with listening(listener.serve) as port:
        wire = Wire(port)
        await wire.start()
        yield wire
        await wire.stop()


async def connect(wire: Wire) -> Ends:
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
    assert await exchange(wire, b"+one\r\n") == b"+one\r\n"


async def test_what_was_given_up_arrives_after_what_was_sent_later(
    wire: Wire, listener: Listener
) -> None:
    reader, writer = await connect(wire)
    writer.write(b"+first\r\n")
    await reader.readline()
    wire.strand(0.3)
    writer.write(b"+stranded\r\n")
    writer.close()
    assert await exchange(wire, b"+later\r\n") == b"+later\r\n"
    await wait_until(lambda: len(listener.lines) == 3, "what was stranded")
    assert listener.lines == [b"+first\r\n", b"+later\r\n", b"+stranded\r\n"]


async def test_an_answer_is_lost_although_the_request_arrived(
    wire: Wire, listener: Listener
) -> None:
    reader, writer = await connect(wire)
    writer.write(b"+one\r\n")
    await reader.readline()
    wire.cut_answers()
    writer.write(b"+two\r\n")
    assert await is_closed(reader)
    writer.close()
    assert listener.lines == [b"+one\r\n", b"+two\r\n"]


async def test_a_cut_ends_all_connections_but_not_new_ones(wire: Wire) -> None:
    reader, writer = await connect(wire)
    writer.write(b"+one\r\n")
    await reader.readline()
    wire.cut()
    assert await is_closed(reader)
    writer.close()
    assert await exchange(wire, b"+two\r\n") == b"+two\r\n"


async def test_nothing_passes_a_black_hole_until_it_closes(wire: Wire, listener: Listener) -> None:
    wire.is_open.clear()
    waiting = asyncio.create_task(exchange(wire, b"+one\r\n"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.2)
    assert listener.lines == []
    wire.is_open.set()
    assert await waiting == b"+one\r\n"


def test_commands_are_cut_where_they_end_however_they_come() -> None:
    sent = [hiredis.pack_command(("EVALSHA", "ab", 0, b"\r\n*1")), b"PING\r\n"]
    stream = b"".join(sent) * 2
    for step in (1, 7, len(stream)):
        commands = resp.Commands()
        pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
        assert [one for piece in pieces for one in commands.feed(piece)] == sent * 2
    assert [resp.name(one) for one in sent] == [b"EVALSHA", b""]


@pytest.fixture
async def server_wire(tmp_path: Path) -> AsyncIterator[Wire]:
    server = EmbeddedServer(tmp_path)
    server.start()
    assert server.port is not None
    it = Wire(server.port)
    await it.start()
    yield it
    await it.stop()
    server.stop()


@pytest.mark.real
async def test_refused_commands_are_answered_in_their_places(server_wire: Wire) -> None:
    async with redis.asyncio.Redis.from_url(server_wire.url, protocol=2) as client:
        await client.set("k", "before")
        server_wire.refusal = Refusal("ERR upstream failure", is_of_reads_too=False)
        batch = client.pipeline(transaction=False)
        batch.get("k").set("k", "refused").get("k")
        first, refused, last = await batch.execute(raise_on_error=False)
        assert (first, str(refused), last) == (b"before", "upstream failure", b"before")
        server_wire.refusal = Refusal("ERR upstream failure", is_of_reads_too=True)
        with pytest.raises(redis.exceptions.ResponseError, match="upstream failure"):
            await client.get("k")
        server_wire.refusal = None
        assert await client.get("k") == b"before"
    assert server_wire.refused == 2


@pytest.mark.real
async def test_scripts_are_forgotten_between_two_calls_of_a_batch(server_wire: Wire) -> None:
    async with redis.asyncio.Redis.from_url(server_wire.url, protocol=2) as client:
        sha = await client.script_load("return 1")
        server_wire.forgets_scripts = True
        batch = client.pipeline(transaction=False)
        for _ in range(2):
            batch.execute_command("EVALSHA", sha, 0)
        first, second = await batch.execute(raise_on_error=False)
    assert first == 1
    assert isinstance(second, redis.exceptions.NoScriptError)
    assert server_wire.forgotten == 1
