"""The PROXY protocol, versions 1 and 2: for whom a proxy of ours opened a connection.

Pure: bytes in, an address out. Source: https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt
Reads no byte too many: what follows a header is TLS or HTTP, and another's to read.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_V2_BYTES: Final = 4096
"""Of a header's variable part; proxies are known to send a few hundred bytes."""
_V1: Final = b"PROXY "
V1_MAX_BYTES: Final = 107  # section 2.1, the line feed included
_V2_FIXED: Final = struct.Struct("!BBH")
_LOCAL: Final = 0
_PROXY: Final = 1
_FAMILIES: Final = {  # TCP over IPv4, over IPv6: source, destination, their ports
    0x11: (struct.Struct("!4s4sHH"), IPv4Address),
    0x21: (struct.Struct("!16s16sHH"), IPv6Address),
}
_WITHOUT_ADDRESS: Final = (0x00, 0x31)  # unspecified, a unix socket


class Source(NamedTuple):
    """The address that a connection came from, as text, and its port."""

    host: str
    port: int


class NotAHeaderError(ValueError):
    """What a connection begins with is not a header of the PROXY protocol; its text says why."""


Reading = Generator[int, bytes, Source | None]
"""Yields how many bytes it needs next and is sent exactly these; returns the source."""


def read() -> Reading:
    """Reads one header. The source is `None` where the proxy says none, as in its health checks.

    Raises `NotAHeaderError`.
    """
    start = yield len(SIGNATURE)
    if start == SIGNATURE:
        return (yield from _read_v2())
    if is_line(start):
        return (yield from _read_v1(start))
    raise NotAHeaderError("it does not begin with a header of the PROXY protocol")


def is_line(start: bytes) -> bool:
    """Whether a header that begins so is of version 1: a line, which `read` takes byte by byte."""
    return start.startswith(_V1)


def _read_v1(start: bytes) -> Reading:
    line = start
    while not line.endswith(b"\r\n"):
        if len(line) >= V1_MAX_BYTES:
            raise NotAHeaderError(f"its line is longer than {V1_MAX_BYTES} bytes")
        line += yield 1
    words = line[:-2].split(b" ")
    if words[1:2] == [b"UNKNOWN"]:
        return None
    kinds = {b"TCP4": IPv4Address, b"TCP6": IPv6Address}
    make = kinds.get(words[1])
    if make is None or len(words) != 6:
        raise NotAHeaderError("its line names no protocol, or not two addresses and two ports")
    try:
        source, _ = (make(word.decode("ascii")) for word in words[2:4])
        port, _ = (_port(word) for word in words[4:])
    except ValueError as error:
        raise NotAHeaderError("its line has an address or a port that is none") from error
    return Source(str(source), port)


def _port(word: bytes) -> int:
    if not word.isdigit() or (len(word) > 1 and word.startswith(b"0")) or int(word) > 0xFFFF:
        raise ValueError(word)
    return int(word)


def _read_v2() -> Reading:
    version_command, family, length = _V2_FIXED.unpack((yield _V2_FIXED.size))
    version, command = version_command >> 4, version_command & 0xF
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise NotAHeaderError(f"version {version} with command {command} is not known")
    if length > MAX_V2_BYTES:
        raise NotAHeaderError(f"it is longer than {MAX_V2_BYTES} bytes")
    rest = (yield length) if length else b""
    if command == _LOCAL or family in _WITHOUT_ADDRESS:
        return None
    known = _FAMILIES.get(family)
    if known is None:
        raise NotAHeaderError(f"addresses of family {family:#04x} are not known")
    layout, make = known
    if len(rest) < layout.size:
        raise NotAHeaderError("it is too short for its addresses")
    source, _, port, _ = layout.unpack_from(rest)
    return Source(str(make(source)), port)
