"""Up means that what is needed works, and each change is told once."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from bridge.errors import RedisRefusesError, RedisUnavailableError, advised
from bridge.store.health import REMEMBERED_S, Health


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def refused(code: str, what: str) -> RedisRefusesError:
    return RedisRefusesError(f"Redis cannot serve now: {code}", code=code, what=what)


@pytest.mark.parametrize("code", ["READONLY", "MISCONF", "NOREPLICAS", "OOM"])
def test_a_server_that_reads_and_refuses_writes_is_told_once(code: str) -> None:
    health = Health(Clock())
    with capture_logs() as lines:
        health.mark_up(["GET"])
        for _ in range(60):
            health.mark_down(refused(code, "HSET"))
            health.mark_up(["GET", "XLEN"])
            assert health.is_up is False
        assert health.refusal is None  # it will pass
        health.mark_up(["HSET"])
    assert health.is_up is True
    assert [line["event"] for line in lines] == ["redis_lost", "redis_back"]


def test_what_is_not_tried_again_does_not_count_for_ever() -> None:
    clock = Clock()
    health = Health(clock)
    health.mark_down(refused("READONLY", "park"))
    clock.now_s += REMEMBERED_S - 1
    health.mark_up(["GET"])
    assert health.is_up is False
    clock.now_s += 2
    health.mark_up(["GET"])
    assert health.is_up is True


def test_a_server_that_was_away_is_back_with_its_first_answer() -> None:
    health = Health(Clock())
    health.mark_down(RedisUnavailableError("Redis: no answer"))
    health.mark_up(["GET"])
    assert health.is_up is True


def test_a_lasting_refusal_is_told_although_the_server_was_away_before() -> None:
    health = Health(Clock())
    with capture_logs() as lines:
        health.mark_down(RedisUnavailableError("Redis: no answer"))
        for _ in range(3):
            health.mark_down(refused("NOPERM", "connecting"))
    assert [line["event"] for line in lines] == ["redis_lost", "redis_lost"]
    assert health.refusal is not None
    assert health.refusal.lacks_rights
    health.granted("connecting")
    health.mark_up(["GET"])
    assert health.refusal is None


def test_a_convenience_that_is_refused_is_told_once() -> None:
    health = Health(Clock())
    with capture_logs() as lines:
        health.missing("CLIENT SETNAME", "NOPERM")
        health.missing("CLIENT SETNAME", "NOPERM")
    assert len(lines) == 1


@pytest.mark.parametrize("code", ["NOPERM", "NOAUTH", "WRONGPASS", "MAXCLIENTS", "LOADING"])
def test_nobody_is_told_to_start_a_server_that_answered(code: str) -> None:
    told = str(advised("redis://h", refused(code, "connecting")))
    assert "start it" not in told
    assert "start it" in str(advised("redis://h", RedisUnavailableError("Redis: refused")))
