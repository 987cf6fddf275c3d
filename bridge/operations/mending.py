"""A body as text that people edit, and back: what they did not touch keeps its bytes. Pure.

Forms send every line end as CR LF and know no bytes that are not text, so lines are compared: one
that is as it was shown stays byte for byte, and so does its end.
"""

from __future__ import annotations

import re
from typing import Final

_LINE: Final = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_ENDS: Final = (b"\r\n", b"\r", b"\n")


def text_of(body: bytes) -> str:
    """As it is shown to be edited: bytes that are no text are written out, `\\xff`."""
    return "\n".join(_shown(content) for content, _ in _lines(body))


def mended(body: bytes, text: str) -> bytes:
    """`body` as edited: `text` is what came of `text_of(body)`, with line ends of any kind."""
    before = _lines(body)
    after = re.split("\r\n|\r|\n", text)
    if len(after) == len(before):
        whole = b"".join(map(_kept, before, after))
    else:
        whole = _joined(before, after)
    if text_of(whole) == "\n".join(after):
        return whole
    return "\n".join(after).encode(errors="replace")  # ends of several kinds have met


def _joined(before: list[tuple[bytes, bytes]], after: list[str]) -> bytes:
    """Lines were added or taken away: what is alike at both ends stays, what is between is new."""
    start = _alike(before, after)
    end = _alike(before[start:][::-1], after[start:][::-1])
    usual = _usual_end(before)
    new = [(line.encode(errors="replace"), usual) for line in after[start : len(after) - end]]
    *others, (last, _) = [*before[:start], *new, *before[len(before) - end :]]
    return b"".join(content + (line_end or usual) for content, line_end in others) + last


def _lines(body: bytes) -> list[tuple[bytes, bytes]]:
    """Each line and its end; the last has none, and may be empty."""
    found = []
    for match in _LINE.finditer(body):
        line = match[0]
        end = next((end for end in _ENDS if line.endswith(end)), b"")
        found.append((line.removesuffix(end), end))
        if not end:
            break
    return found


def _shown(content: bytes) -> str:
    # A form cannot carry NUL: HTML has no way to write it.
    return content.decode(errors="backslashreplace").replace("\0", "\\x00")


def _kept(line: tuple[bytes, bytes], shown: str) -> bytes:
    content, end = line
    return (content if _shown(content) == shown else shown.encode(errors="replace")) + end


def _alike(before: list[tuple[bytes, bytes]], after: list[str]) -> int:
    """How many lines at the beginning are as they were shown."""
    count = 0
    for (content, _), shown in zip(before, after, strict=False):
        if _shown(content) != shown:
            break
        count += 1
    return count


def _usual_end(lines: list[tuple[bytes, bytes]]) -> bytes:
    ends = [end for _, end in lines if end]
    return max(_ENDS, key=ends.count) if ends else b"\n"
