"""Bodies in quarantine given back: by the path they came on, or mended."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.operations.quarantined import Kept, NotReplayableError, Replayer, _kept
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
    assert _kept(b"1-0", [b"a", b"b"]) == Kept(id=b"1-0", body=None)
