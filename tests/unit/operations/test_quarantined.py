"""Bodies in quarantine: which are alike, and given back as they are, or mended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge.operations.quarantined import (
    Alike,
    Kept,
    NotReplayableError,
    Replayer,
    by_reason,
    kept_in,
)
from bridge.outbox.records import QuarantinedBody
from bridge.settings import Settings
from support.ingresses import body

PLATFORM = b'{"notifyType": "deviceAdded", "deviceId": "d1"}'
SETTINGS = Settings()


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("bridge.operations.quarantined.publisher_for", lambda *_: None)
    return Replayer(None, SETTINGS)._judge  # type: ignore[arg-type]


def kept(raw: bytes, *, path: str = "/cmd", keep_bytes: int = 1000) -> Kept:
    it = QuarantinedBody.of(
        raw, reason="not_json", details=[], path=path, received_at_ms=1, keep_bytes=keep_bytes
    )
    return Kept(id=b"1-0", body=it)


def test_a_body_is_recognised_anew_whichever_path_it_came_on(judge: Any) -> None:
    assert judge(kept(body("d9")), None).device == "d9"
    assert judge(kept(PLATFORM, path="/v1.0.0/messageReceiver/cmd"), None).type == "deviceAdded"
    with pytest.raises(NotReplayableError, match="still no notification: looks like"):
        judge(kept(b'{"notifyType": 7}'), None)


def test_a_mended_body_may_be_of_either_kind(judge: Any) -> None:
    assert judge(kept(b"x"), body("d9")).device == "d9"
    assert judge(kept(b"x"), PLATFORM).type == "deviceAdded"


@pytest.mark.parametrize("mended", [b"{", b"{}"])
def test_a_mended_body_that_is_still_none_is_told(judge: Any, mended: bytes) -> None:
    with pytest.raises(NotReplayableError, match="still no notification"):
        judge(kept(b"x"), mended)


@pytest.mark.parametrize("it", [kept(body(), keep_bytes=5), Kept(id=b"1-0", body=None)])
def test_what_was_not_kept_whole_needs_a_file(judge: Any, it: Kept) -> None:
    with pytest.raises(NotReplayableError, match="--file"):
        judge(it, None)
    assert judge(it, body("d9")).device == "d9"


def test_what_cannot_be_read_is_listed_all_the_same() -> None:
    assert kept_in(b"1-0", [b"a", b"b"]) == Kept(id=b"1-0", body=None)


@pytest.mark.parametrize(
    ("raw", "device"),
    [
        (body("d9"), "d9"),
        (b'{"resource": 7, "notify_data": {"header": {"device_id": "d9"}}}', "d9"),
        (b'{"resource": 7, "notify_data": {"header": 7}, "deviceId": "d9"}', None),
        (b'{"deviceId": 7}', None),
        (b"[]", None),
        (b"7", None),
        (b"{", None),
    ],
)
def test_whose_it_may_be_is_read_where_a_form_has_it(raw: bytes, device: str | None) -> None:
    assert kept(raw).device == device


async def test_bodies_that_are_alike_are_counted_together() -> None:
    def in_quarantine(number: int, reason: Any, *details: str) -> Kept:
        made = QuarantinedBody.of(
            b"x", reason=reason, details=details, path="/", received_at_ms=number, keep_bytes=9
        )
        return Kept(id=b"%d-0" % number, body=made)

    async def found() -> AsyncIterator[Kept]:
        yield in_quarantine(1, "not_json", "not JSON: at character 7")
        yield in_quarantine(2, "not_a_notification", "looks like a", "b: c")
        yield in_quarantine(3, "not_json", "not JSON: at character 9")
        yield Kept(id=b"4-0", body=None)

    assert await by_reason(found()) == [
        Alike(reason="not_json", looks="is not a JSON object", bodies=2, oldest_at_ms=1,
              newest_at_ms=3, example="3-0"),
        Alike(reason="not_a_notification", looks="looks like a", bodies=1, oldest_at_ms=2,
              newest_at_ms=2, example="2-0"),
        Alike(reason="unreadable", looks="unreadable", bodies=1, oldest_at_ms=4,
              newest_at_ms=4, example="4-0"),
    ]  # fmt: skip
