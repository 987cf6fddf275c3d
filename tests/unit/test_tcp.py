"""What tests listen with leaves nothing open."""

from __future__ import annotations

import asyncio

import pytest

from support.tcp import connected, listening


async def test_a_connection_whose_handler_still_waits_is_closed_at_the_end() -> None:
    kept: list[asyncio.StreamWriter] = []

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.append(writer)
        writer.write(b"begun\n")
        await asyncio.Event().wait()

    async with listening(wait) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.readline() == b"begun\n"
    assert await reader.read() == b""
    assert kept[0].transport.get_extra_info("socket").fileno() == -1
    writer.close()


async def test_what_a_handler_raises_fails_the_test() -> None:
    async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise ValueError("not this")

    with pytest.raises(ExceptionGroup) as raised:
        async with listening(fail) as port, connected(port) as (reader, _):
            assert await reader.read() == b""
    assert raised.group_contains(ValueError, match="not this")
