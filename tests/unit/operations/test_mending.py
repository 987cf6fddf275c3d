"""Bodies as text and back: what was not touched keeps its bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.operations.mending import mended, text_of

PIECES = [b"a", b'{"b": 1}', b"\r", b"\n", b"\r\n", b"\xff", b"\0", "é".encode(), b"\\xff"]
BODIES = st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)


def from_form(text: str) -> str:
    return text.replace("\n", "\r\n")


@given(BODIES)
def test_untouched_it_is_the_same_bytes(body: bytes) -> None:
    assert mended(body, from_form(text_of(body))) == body


@given(BODIES, st.text("ab\n", max_size=8))
def test_it_says_what_was_written(body: bytes, text: str) -> None:
    assert text_of(mended(body, from_form(text))) == text


def test_other_lines_keep_their_bytes_and_ends() -> None:
    body = b'{\r\n\t"a": "\xff",\n"b": 1}\n'
    shown = text_of(body)
    assert shown == '{\n\t"a": "\\xff",\n"b": 1}\n'
    assert mended(body, from_form(shown.replace("1", "2"))) == body.replace(b"1", b"2")
    added = mended(body, from_form(shown.replace('"b"', '"c": 3,\n"b"')))
    assert added == b'{\r\n\t"a": "\xff",\n"c": 3,\n"b": 1}\n'


def test_what_a_form_cannot_carry_is_written_out() -> None:
    assert text_of(b"a\0b") == "a\\x00b"
