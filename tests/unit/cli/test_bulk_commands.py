"""Choosing many, acting on them at a pace, and showing what strangers sent."""

from __future__ import annotations

import contextlib
import io
import json

import pytest

from bridge.cli import bulk_commands, redis_commands
from bridge.errors import BridgeError, UsageError
from bridge.operations import bodies
from bridge.operations.bulk import Tally
from bridge.operations.selection import Filter
from bridge.terminal import visible


def filter_(**asked: str) -> Filter:
    return Filter.of(**{**dict.fromkeys(("device", "error", "since", "until")), **asked})


def test_a_filter_that_asks_nothing_takes_all() -> None:
    assert not filter_().asks
    assert filter_().matches(device=None, error="", at_ms=0)


@pytest.mark.parametrize(
    ("asked", "is_meant"),
    [
        ({"device": "d"}, True),
        ({"device": "D"}, False),
        ({"error": "TIMEOUT"}, True),
        ({"error": "refused"}, False),
        ({"since": "1970-01-01T00:00:10"}, True),
        ({"since": "1970-01-01T00:00:11"}, False),
        ({"until": "1970-01-01T00:00:11"}, True),
        ({"until": "1970-01-01T00:00:10"}, False),
        ({"device": "d", "error": "nope"}, False),
    ],
)
def test_a_filter_means_what_fits_all_that_is_asked(asked: dict[str, str], is_meant: bool) -> None:
    found = filter_(**asked).matches(device="d", error="read timeout", at_ms=10_000)
    assert found is is_meant


@pytest.mark.parametrize(
    ("names", "asked", "is_all"),
    [((), {}, False), (("1-0",), {}, True), (("1-0",), {"device": "d"}, False),
     ((), {"device": "d"}, True)],
)  # fmt: skip
def test_which_ones_must_be_said_in_one_way(
    names: tuple[str, ...], asked: dict[str, str], is_all: bool
) -> None:
    with pytest.raises(UsageError, match="--all"):
        bulk_commands.one_way(names, filter_(**asked), is_all)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [({}, 0), ({"replayed": 3}, 0), ({"replayed": 2, "duplicate": 1}, 0), ({"gone": 1}, 1),
     ({"replayed": 2, "left": 1}, 1)],
)  # fmt: skip
def test_what_did_not_go_as_asked_is_a_problem(
    outcomes: dict[str, int], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = Tally(matched=3, outcomes=outcomes)
    assert bulk_commands.show_tally(tally, what="things", dry_run=False, as_json=True) == code
    assert json.loads(capsys.readouterr().out)["outcomes"] == outcomes


def test_nothing_is_done_unasked_where_nobody_can_be_asked() -> None:
    with pytest.raises(UsageError, match="--yes"):
        redis_commands.confirm("Drop 3 things?", yes=False)
    redis_commands.confirm("Drop 3 things?", yes=True)


@pytest.mark.parametrize(("answer", "is_done"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_somebody_who_can_be_asked_decides(
    answer: str, is_done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    with contextlib.nullcontext() if is_done else pytest.raises(BridgeError, match="nothing"):
        redis_commands.confirm("Drop 3 things?", yes=False)


def test_a_body_is_shown_as_json_or_as_the_text_it_is() -> None:
    assert bodies.shown(b'{"a":"\xc3\xa9"}') == '{\n  "a": "é"\n}'
    assert bodies.shown(b"no \xff json") == "no \\xff json"
    assert bodies.shown(b"[" * 100_000) == "[" * 100_000


def test_a_body_for_programs_keeps_every_byte() -> None:
    assert bodies.fields_of(b"{}") == {"body": "{}"}
    assert bodies.fields_of(b"\xff") == {"body_base64": "/w=="}


@pytest.mark.parametrize("text", ["\x1b[2J", "\x07", "a\rb", "\x9b1m", "\u202e", "\x00"])
def test_a_terminal_obeys_nothing_that_strangers_sent(text: str) -> None:
    assert all(each.isprintable() for each in visible(text))
    assert visible("né\t1\n") == "né\t1\n"
