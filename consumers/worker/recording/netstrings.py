"""Netstrings: byte strings one after the other, each with its length before it.

A parked message is its entry id, then the entry's field names and values. Source:
https://cr.yp.to/proto/netstrings.txt
"""

from __future__ import annotations

from collections.abc import Iterable

from bridge.contract.meta import ContractError


def encode(strings: Iterable[bytes]) -> bytes:
    """`[b"ab", b""]` → `b"2:ab,0:,"`."""
    return b"".join(b"%d:%b," % (len(string), string) for string in strings)


def decode(raw: bytes) -> list[bytes]:
    """The strings in `raw`; `ContractError` where it is cut short or no netstrings."""
    strings, at = [], 0
    while at < len(raw):
        colon = raw.find(b":", at, at + 12)
        digits = raw[at:colon]
        if colon < 0 or not digits.isdigit():
            raise ContractError("a parked message without a length")
        end = colon + 1 + int(digits)
        if raw[end : end + 1] != b",":
            raise ContractError("a parked message that is cut short")
        strings.append(raw[colon + 1 : end])
        at = end + 1
    return strings
