"""Whether the promise is kept, by what ingresses say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from bridge.operations import ingress_status, promise
from bridge.operations.ingresses import SILENT_MS, Ingress
from bridge.operations.promise import MISSED_MS, Report
from support.tcp import listening

FINE = Report(
    name="i1", source="heartbeat", age_ms=900, at_ms=1, url="http://one", path="direct",
    spool_entries=0, answers={"200": 7}, consecutive_failures=0, last_callback_at_ms=5,
)  # fmt: skip


def level(*reports: Report, up: bool = True) -> str:
    return promise.judge(reports, is_redis_up=up).level


def test_it_is_kept_while_everybody_answers_and_publishes() -> None:
    judged = promise.judge([FINE, replace(FINE, name="i2", answers={"200": 1, "503": 2})],
                           is_redis_up=True)  # fmt: skip
    assert (judged.level, judged.reasons) == ("kept", ())
    assert judged.answers == {"200": 8, "503": 2}
    assert (judged.consecutive_failures, judged.last_callback_at_ms) == (0, 5)
    assert judged.spool_entries == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"path": "spool", "spool_entries": 3}, "at_risk"),
        ({"path": "spool", "pressure": "Redis is near its maxmemory"}, "at_risk"),
        ({"consecutive_failures": 1}, "at_risk"),
        ({"consecutive_failures": 10}, "broken"),
        ({"not_ready": ("the spool is full",)}, "broken"),
    ],
)
def test_what_is_not_fine(changes: dict[str, Any], expected: str) -> None:
    judged = promise.judge([replace(FINE, **changes)], is_redis_up=True)
    assert judged.level == expected
    assert judged.reasons


def test_who_does_not_answer() -> None:
    gone = replace(FINE, name="i2", url="http://two", source="nobody")
    assert level(FINE, gone) == "at_risk"
    assert level(FINE, replace(gone, age_ms=MISSED_MS)) == "kept"  # history
    here = replace(FINE, name="host:2:b")
    left = replace(here, name="host:1:a", source="nobody", spool_entries=4)
    assert level(here, left) == "kept"  # another took its place, and what it left
    elsewhere = replace(left, name="other:1:a")
    assert level(here, elsewhere) == "at_risk"  # in containers all have one address
    assert level(gone) == "broken"
    assert level(gone, up=False) == "unknown"
    assert level() == level(up=False) == "unknown"


def test_callbacks_in_the_spool_of_who_is_gone_stay_a_risk() -> None:
    gone = replace(FINE, name="a:1:x", source="nobody", age_ms=10 * MISSED_MS, spool_entries=4)
    judged = promise.judge([replace(FINE, name="b:1:y"), gone], is_redis_up=True)
    assert judged.level == "at_risk"
    assert "4 callbacks are in its spool only" in judged.reasons[0]


def test_a_heartbeat_is_believed_no_further_than_its_types_go() -> None:
    beat = {
        "at_ms": 1, "url": 7, "path": "direct", "answers": {"200": 3, "x": "many"},
        "consecutive_failures": True, "spool_entries": "3", "not_ready": "no",
    }  # fmt: skip
    report = promise.of_heartbeat(Ingress(name="i", heartbeat=beat, age_ms=0))
    assert (report.url, report.path, report.answers) == (None, "direct", {"200": 3})
    assert (report.consecutive_failures, report.spool_entries, report.not_ready) == (None, None, ())
    old = promise.of_heartbeat(Ingress(name="i", heartbeat={"answers": []}, age_ms=SILENT_MS + 1))
    assert (old.source, old.answers) == ("nobody", {})


# --- asking ingresses themselves


class Admin:
    """An admin listener that says what the test wants."""

    def __init__(self) -> None:
        self.url = ""
        self.body: bytes = b""
        self.asked: list[bytes] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + self.body)


@pytest.fixture
async def admin() -> AsyncIterator[Admin]:
    admin = Admin()
    async with listening(admin.answer) as port:
        admin.url = f"http://127.0.0.1:{port}"
        yield admin


async def test_an_ingress_says_itself_how_it_does(admin: Admin) -> None:
    said = {
        "role": "ingress", "name": "i1", "path": "spool", "spool": {"entries": 4},
        "answers": {"200": 9}, "consecutive_failures": 0, "not_ready": [],
    }  # fmt: skip
    admin.body = json.dumps(said).encode()
    (report,) = await promise.asked([replace(FINE, source="nobody", admin_url=admin.url)])
    assert (report.source, report.path, report.spool_entries) == ("itself", "spool", 4)
    assert admin.asked[0].startswith(b"GET /status HTTP/1.0\r\n")
    (other,) = await promise.asked([replace(FINE, name="i2", admin_url=admin.url)])
    assert other.source == "nobody"  # another one has its port now
    (guess,) = await promise.asked([promise.unknown_at(admin.url)])
    assert (guess.source, guess.name) == ("itself", "i1")


async def test_an_ingress_whose_clock_is_ahead_is_asked_itself(admin: Admin) -> None:
    admin.body = b'{"role": "ingress", "name": "i1", "path": "direct", "answers": {"200": 9}}'
    beat = {"path": "direct", "admin_url": admin.url, "url": "http://one"}
    ahead = promise.of_heartbeat(Ingress(name="i1", heartbeat=beat, age_ms=0, ahead_ms=900_000))
    assert ahead.source == "nobody"
    judged = promise.judge(await promise.asked([ahead]), is_redis_up=True)
    assert judged.level == "at_risk"
    assert judged.reasons == ("i1 answers; its clock is 900 s ahead",)
    admin.body = b""
    judged = promise.judge([FINE, *await promise.asked([replace(ahead, name="gone")])],
                           is_redis_up=True)  # fmt: skip
    assert judged.reasons == (
        "gone does not answer: it is gone, or cannot be reached; its clock is 900 s ahead",
    )


async def test_numbers_that_an_ingress_cannot_have_counted_are_not_known(admin: Admin) -> None:
    said = {"role": "ingress", "name": "i1", "answers": {"200": 10**400, "503": 1},
            "spool": {"entries": 2**63}, "consecutive_failures": -(10**30)}  # fmt: skip
    admin.body = json.dumps(said).encode()
    (report,) = await promise.asked([promise.unknown_at(admin.url)])
    assert report.answers == {"503": 1}
    assert (report.spool_entries, report.consecutive_failures) == (None, None)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"role": "worker"}', b"[" * 100_000, b"\xff"])
async def test_whoever_answers_otherwise_is_nobody(admin: Admin, body: bytes) -> None:
    admin.body = body
    assert await ingress_status.ask(admin.url) is None


@pytest.mark.parametrize(
    "url",
    ["", "http://", "http://127.0.0.1", "https://127.0.0.1:1", "http://[", "http://127.0.0.1:1",
     "http://127.0.0.1:99999", "http://a\r\nb:1"],
)  # fmt: skip
async def test_what_is_no_address_of_an_ingress_is_not_asked(url: str) -> None:
    assert await ingress_status.ask(url) is None
