"""PROXY headers: read to the byte, or refused with a reason, in however many pieces they come."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.http import connection
from bridge.http.proxy_protocol import MAX_V2_BYTES, SIGNATURE, NotAHeaderError, Source, read


class CutShortError(Exception):
    """More was wanted than there is."""


def parsed(data: bytes) -> tuple[Source | None, int]:
    """The source, and how many bytes were read."""
    reading = read()
    at, wanted = 0, next(reading)
    while True:
        if at + wanted > len(data):
            raise CutShortError
        piece = data[at : at + wanted]
        at += wanted
        try:
            wanted = reading.send(piece)
        except StopIteration as stop:
            return stop.value, at


def v2(family: int, rest: bytes, *, command: int = 1, version: int = 2) -> bytes:
    return SIGNATURE + struct.pack("!BBH", version << 4 | command, family, len(rest)) + rest


def addresses(source: str, port: int) -> bytes:
    packed = ipaddress.ip_address(source).packed
    return packed + packed + struct.pack("!HH", port, 8443)


@pytest.mark.parametrize(
    ("header", "source"),
    [
        (b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", Source("192.0.2.1", 56324)),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", Source("2001:db8::1", 1)),
        (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", Source("0.0.0.0", 0)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff:f... anything 1 2 3\r\n", None),
        (v2(0x11, addresses("192.0.2.1", 7)), Source("192.0.2.1", 7)),
        (v2(0x21, addresses("2001:db8::1", 7)), Source("2001:db8::1", 7)),
        (v2(0x11, addresses("192.0.2.1", 7) + b"\x04\x00\x03abc"), Source("192.0.2.1", 7)),
        (v2(0x11, addresses("192.0.2.1", 7), command=0), None),
        (v2(0x00, b""), None),
        (v2(0x00, b"", command=0), None),
        (v2(0x31, b"\0" * 216), None),
        (v2(0x00, b"x" * MAX_V2_BYTES), None),
    ],
)
def test_a_header_is_read_and_nothing_behind_it(header: bytes, source: Source | None) -> None:
    assert parsed(header + b"GET / HTTP/1.1\r\n") == (source, len(header))
    for cut in range(len(header)):
        with pytest.raises(CutShortError):
            parsed(header[:cut])


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00",
        SIGNATURE[:-1] + b"x" + b"\x21\x11\x00\x00",
        b"PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443 1\r\n",
        b"PROXY TCP4 192.0.2.300 198.51.100.7 56324 443\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.1 65536 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.1 -1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.1 01 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.1 \xb2 2\r\n",
        b"PROXY TCP4 192.0.2.\xb9 192.0.2.1 1 2\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.1 1 2\r\n",
        b"PROXY  TCP4 1.1.1.1 1.1.1.1 1 2\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        v2(0x11, addresses("192.0.2.1", 7), version=1),
        v2(0x11, addresses("192.0.2.1", 7), command=2),
        v2(0x11, addresses("192.0.2.1", 7)[:-1]),
        v2(0x21, addresses("192.0.2.1", 7)),
        v2(0x11, b"x" * (MAX_V2_BYTES + 1)),
        v2(0x12, addresses("192.0.2.1", 7)),
        v2(0x91, addresses("192.0.2.1", 7)),
    ],
)
def test_what_is_none_is_refused_with_a_reason(header: bytes) -> None:
    with pytest.raises(NotAHeaderError) as caught:
        parsed(header + b"\r\n" * 100)
    assert str(caught.value)


starts = st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ::1 ", SIGNATURE,
                          SIGNATURE + b"\x21\x11\x00\x0c", SIGNATURE + b"\x21\x21"])  # fmt: skip


@given(starts, st.binary(max_size=200))
def test_anything_is_a_header_or_none_or_too_short(start: bytes, rest: bytes) -> None:
    data = start + rest
    try:
        source, read_bytes = parsed(data)
    except (NotAHeaderError, CutShortError):
        return
    assert len(SIGNATURE) <= read_bytes <= len(data)
    if source is not None:
        ipaddress.ip_address(source.host)
        assert 0 <= source.port <= 0xFFFF


@given(st.ip_addresses(), st.integers(0, 0xFFFF))
def test_both_versions_say_the_same(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    kind, family = ("TCP4", 0x11) if address.version == 4 else ("TCP6", 0x21)
    first = f"PROXY {kind} {address} {address} {port} 1\r\n".encode()
    second = v2(family, addresses(str(address), port))
    assert parsed(first)[0] == parsed(second)[0] == Source(str(address), port)


# --- from a socket

IPS = st.ip_addresses(v=4) | st.ip_addresses(v=6)
PORTS = st.integers(0, 0xFFFF)


valid = st.one_of(
    st.tuples(IPS, PORTS).map(
        lambda it: (
            f"PROXY TCP{it[0].version} {it[0]} {it[0]} {it[1]} 1\r\n".encode(),
            Source(str(it[0]), it[1]),
        )
    ),
    st.tuples(IPS, PORTS, st.binary(max_size=40)).map(
        lambda it: (
            v2(0x11 if it[0].version == 4 else 0x21, addresses(str(it[0]), it[1]) + it[2]),
            Source(str(it[0]), it[1]),
        )
    ),
    st.binary(max_size=40).map(lambda more: (v2(0x11, more, command=0), None)),
    st.binary(max_size=40).map(lambda more: (v2(0x00, more), None)),
    st.sampled_from([b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN \xff 1\r\n"]).map(lambda it: (it, None)),
)
cuts = st.lists(st.integers(0, 150), max_size=9).map(lambda found: [0, *sorted(found)])


async def read_in_pieces(data: bytes, at: list[int]) -> tuple[Source | None, bytes]:
    """What a connection's beginning says, and what is left for TLS or HTTP to read."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        reading = asyncio.create_task(connection._read_header(asyncio.get_running_loop(), ours))
        for begin, end in zip(at, [*at[1:], None], strict=True):
            theirs.sendall(data[begin:end])
            for _ in range(4):  # until it has read that
                await asyncio.sleep(0)
        theirs.shutdown(socket.SHUT_WR)
        source = await reading
        left = b""
        while part := ours.recv(4096):
            left += part
        return source, left


@given(valid, st.binary(max_size=60), cuts)
@example((v2(0x00, b"x", command=0), None), b"GET / HTTP/1.1\r\n\r\n", [0])
async def test_however_a_header_is_cut_it_is_read_to_the_byte(
    header: tuple[bytes, Source | None], behind: bytes, at: list[int]
) -> None:
    data, source = header
    assert await read_in_pieces(data + behind, at) == (source, behind)


@given(starts, st.binary(max_size=200), cuts)
async def test_however_anything_is_cut_it_is_judged_the_same(
    start: bytes, rest: bytes, at: list[int]
) -> None:
    data = start + rest
    try:
        source, read_bytes = parsed(data)
    except NotAHeaderError as error:
        with pytest.raises(NotAHeaderError, match=f"^{re.escape(str(error))}$"):
            await read_in_pieces(data, at)
    except CutShortError:
        with pytest.raises(ConnectionResetError):
            await read_in_pieces(data, at)
    else:
        assert await read_in_pieces(data, at) == (source, data[read_bytes:])
