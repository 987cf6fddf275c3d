"""The limit of open files: raised as far as it goes, and told where that is too little."""

from __future__ import annotations

import resource

import pytest

from bridge.errors import UsageError
from bridge.http.descriptors import KEPT_BACK, room_for

INFINITE = resource.RLIM_INFINITY


class Limits:
    """Stands for getrlimit and setrlimit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> None:
        self.now = (soft, hard)
        monkeypatch.setattr(resource, "getrlimit", lambda _: self.now)
        monkeypatch.setattr(resource, "setrlimit", self.set)

    def set(self, _: int, limits: tuple[int, int]) -> None:
        soft, hard = limits
        if self.now[1] != INFINITE and soft > self.now[1]:
            raise ValueError("not allowed to raise maximum limit")
        self.now = (soft, hard)


@pytest.mark.parametrize(
    ("soft", "hard", "room", "after"),
    [
        (INFINITE, INFINITE, 4096, INFINITE),
        (10_000, 10_000, 4096, 10_000),
        (1024, 524_288, 4096, 4096 + 16 + KEPT_BACK),
        (1024, INFINITE, 4096, 4096 + 16 + KEPT_BACK),
        (1024, 2048, 2048 - 16 - KEPT_BACK, 2048),
        (256, 256, 256 - 16 - KEPT_BACK, 256),
        (17 + KEPT_BACK, 17 + KEPT_BACK, 1, 17 + KEPT_BACK),
    ],
)
def test_the_soft_limit_is_raised_as_far_as_it_goes(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, room: int, after: int
) -> None:
    limits = Limits(monkeypatch, soft, hard)
    assert room_for(4096, others=16) == room
    assert limits.now == (after, hard)


def test_a_limit_that_leaves_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Limits(monkeypatch, 32, 32)
    with pytest.raises(UsageError, match=r"limit of 32 open files leaves none.*raise it to 152"):
        room_for(96, others=16)


def test_a_limit_that_cannot_be_raised_is_lived_with(monkeypatch: pytest.MonkeyPatch) -> None:
    Limits(monkeypatch, 256, 1024)

    def refuse(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert room_for(4096, others=16) == 256 - 16 - KEPT_BACK
