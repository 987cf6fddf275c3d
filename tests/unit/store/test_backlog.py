"""How far a group is, as Redis replies."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.store import backlog
from bridge.store.backlog import Position
from bridge.store.link import Refused

INFO = [b"name", b"g", b"consumers", 1, b"pending", 3, b"last-delivered-id", b"5-0"]


def test_a_group_of_redis_7() -> None:
    assert backlog.positions([[*INFO, b"entries-read", 5, b"lag", 7]]) == [
        Position(b"g", 3, b"5-0", 7, fetched=5)
    ]


@pytest.mark.parametrize("lag", [[], [b"lag", None]])
def test_where_the_lag_is_not_known_what_waits_is_what_is_not_pending(lag: list[Any]) -> None:
    (position,) = backlog.positions([[*INFO, *lag]])
    assert position.waiting(10) == 7
    assert position.waiting(2) == 0  # trimmed between two replies


def test_a_stream_that_is_none_has_no_groups() -> None:
    assert backlog.positions(Refused("ERR no such key")) == []


def test_the_oldest_is_pending_or_follows() -> None:
    pending, following = [1, b"4-0", b"4-0", []], [[b"6-0", []]]
    assert backlog.oldest_ms(backlog.oldest_ids(pending, following)) == 4
    assert backlog.oldest_ms(backlog.oldest_ids([0, None, None, None], following)) == 6
    assert backlog.oldest_ms(backlog.oldest_ids([0, None, None, None], [])) is None
    assert backlog.oldest_ids(Refused("NOGROUP"), Refused("WRONGTYPE")) == []


def test_what_follows_begins_behind_what_was_delivered() -> None:
    assert backlog.oldest_calls("s", "g", b"5-0")[1].args[2] == b"(5-0"
    assert backlog.oldest_calls("s", "g", None)[1].args[2] == b"-"
