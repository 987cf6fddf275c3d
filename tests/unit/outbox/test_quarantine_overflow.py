"""What the quarantine drops is told when it begins, and again each hour."""

from __future__ import annotations

import structlog.testing

from bridge.outbox.quarantine_overflow import LOG_AGAIN_S, Overflow
from bridge.outbox.records import QuarantinedBody


def junk(reason: str) -> QuarantinedBody:
    return QuarantinedBody.of(
        b"{}", reason="not_a_notification", details=[reason], path="/cmd", received_at_ms=1,
        keep_bytes=2,
    )  # fmt: skip


def test_it_is_told_at_the_beginning_and_each_hour_with_what_came_since() -> None:
    now = [0.0]
    it = Overflow(lambda: now[0])
    with structlog.testing.capture_logs() as logged:
        it.kept(junk("not JSON at character 17"))
        it.dropped(0)
        for _ in range(3):
            it.kept(junk("deviceId: missing"))
            it.dropped(2)
        now[0] = LOG_AGAIN_S
        it.kept(junk("deviceId: missing"))
        it.dropped(1)
    assert [(line["count"], line["reason"]) for line in logged] == [
        (2, "not JSON at character …"),
        (5, "deviceId: missing"),
    ]


def test_the_commonest_reason_is_named_not_the_first_nor_the_last() -> None:
    it = Overflow(lambda: 0.0)
    with structlog.testing.capture_logs() as logged:
        for reason in ("rare", "common", "common", "common", "other", "other"):
            it.kept(junk(reason))
        it.dropped(1)
    assert [line["reason"] for line in logged] == ["common"]


def test_reasons_are_bounded() -> None:
    it = Overflow(lambda: 0.0)
    for number in range(1000):
        it.kept(junk("x" * number))
    assert len(it._reasons) <= 100
