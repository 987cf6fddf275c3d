"""Pages about one command, one device, or whatever has an id."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import pytest
from aiohttp import web
from yarl import URL

from bridge.console import filters, looking
from bridge.console.looking import Answer, looked_up
from bridge.errors import BridgeError
from bridge.http.problem import Problem
from bridge.operations import device, search_anything, trace
from bridge.operations.progress import Bar
from bridge.operations.trace import Spooled
from support.entries import entry
from support.operators_streams import Streams

from .conftest import Begin, Client, World

JSON = {"Accept": "application/json"}
MARKUP = "<img src=x onerror=alert(1)>/%2F"


async def test_a_command_is_what_trace_says(client: Client, streams: Streams, world: World) -> None:
    await streams.register("first", "second")
    await streams.publish(entry("d1", "c1", "SENT"), entry("d1", "c1", "DELIVERED", late=True))
    world.spooled = [Spooled(file="f", device="d1", status="FAILED", received_at_ms=1)]
    found = await trace.trace(streams.connected, "c1")
    found.spooled += world.spooled
    answer = await client.get("/commands/c1", headers=JSON)
    assert await answer.json() == {"schema": 1, **found.document()}
    text = await (await client.get("/commands/c1")).text()
    for word in ("SENT", "DELIVERED", "late", "first", "second", "waiting", "FAILED"):
        assert word in text
    assert 'href="/devices/d1"' in text


async def test_a_device_is_what_device_says(client: Client, streams: Streams) -> None:
    await streams.register("first")
    (_, second) = await streams.publish(entry("d1", "c1"), entry("d1", "c2"))
    await streams.fetch("first", "d1", 2)
    await streams.park("first", "d1", second, due_ms=1_795_438_561_534)
    found = await device.look(streams.connected, "d1")
    answer = await client.get("/devices/d1", headers=JSON)
    assert await answer.json() == {"schema": 1, **found.document(50)}
    text = await (await client.get("/devices/d1")).text()
    assert "2026-11-23 12:56:01 UTC" in text
    assert 'href="/commands/c2"' in text
    assert "nobody owns its partition" in text


async def test_ids_that_are_markup_are_shown_as_they_are(client: Client, streams: Streams) -> None:
    await streams.register("first")
    await streams.publish(entry(MARKUP, MARKUP, "SENT"))
    for kind in ("commands", "devices"):
        address = filters.link(kind, MARKUP)
        answer = await client.get(URL(address, encoded=True))
        text = await answer.text()
        assert answer.status == 200
        assert "<img src=x" not in text
        assert "&lt;img src=x onerror=alert(1)&gt;/%2F" in text
        other = filters.link("devices" if kind == "commands" else "commands", MARKUP)
        assert f'href="{other}"' in text


async def test_nothing_is_known(client: Client, streams: Streams) -> None:
    answer = await client.get("/commands/none")
    assert answer.status == 404
    assert "Nothing is known of this command" in await answer.text()
    assert (await client.get("/commands/none", headers=JSON)).status == 404
    answer = await client.get("/devices/none")
    assert answer.status == 200
    assert "Is the id complete?" in await answer.text()


@pytest.mark.parametrize(
    "path", ["/commands/c", "/devices/d", "/search?q=x", "/groups", "/workers"]
)
async def test_redis_is_away(client: Client, world: World, path: str) -> None:
    answer = await client.get(path)
    assert answer.status == 503
    assert str(world.away) in await answer.text()
    assert (await client.get(path, headers=JSON)).status == 503


# --- search


async def test_a_search_goes_to_the_one_thing_that_it_finds(
    client: Client, streams: Streams
) -> None:
    await streams.register("first")
    sent = entry("d1", "c1", "SENT", id="0123456789abcdef" * 2)
    event = entry("d2", "", "", id="fedcba9876543210" * 2)
    await streams.publish(sent, event)
    for asked, goes_to in (
        ("c1", "/commands/c1"),
        (" d1 ", "/devices/d1"),
        (sent.id.upper(), "/commands/c1"),
        (event.id, "/devices/d2"),
    ):
        answer = await client.get("/search", params={"q": asked}, allow_redirects=False)
        assert (answer.status, answer.headers["Location"]) == (303, goes_to)


async def test_a_search_that_finds_several_things_offers_them(
    client: Client, streams: Streams
) -> None:
    await streams.register("first")
    await streams.publish(entry("same", "c1"), entry("d1", "same"))
    answer = await client.get("/search?q=same", allow_redirects=False)
    text = await answer.text()
    assert answer.status == 200
    assert 'href="/commands/same"' in text
    assert 'href="/devices/same"' in text
    document = await (await client.get("/search?q=same", headers=JSON)).json()
    assert document == {
        "schema": 1, "asked": "same", "commands": ["same"], "devices": ["same"],
        "is_complete": True,
        "urls": ["/commands/same", "/devices/same"],
    }  # fmt: skip


async def test_a_search_that_finds_nothing_keeps_what_was_asked(
    client: Client, streams: Streams
) -> None:
    answer = await client.get("/search", params={"q": '"><script>'})
    text = await answer.text()
    assert answer.status == 404
    assert "<script>" not in text
    assert 'value="&#34;&gt;&lt;script&gt;"' in text


async def test_a_search_does_not_read_long_streams(
    client: Client, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_anything, "SHORT", 0)
    await streams.register("first")
    await streams.publish(entry("d1", "c1"))  # the ledger does not know it
    answer = await client.get("/search?q=c1")
    assert answer.status == 404
    assert 'href="/commands/c1">Look through every stream' in await answer.text()
    assert (await client.get("/commands/c1")).status == 200


@pytest.mark.parametrize("asked", ["", "   ", "x" * 257])
async def test_a_search_for_what_cannot_be_an_id(client: Client, asked: str) -> None:
    assert (await client.get("/search", params={"q": asked})).status == 400


# --- what takes a while


class Slow:
    """A page whose finding the test holds."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.fails: Exception | None = None
        self.location: str | None = None
        self.is_cancelled = False
        self.routes = (web.get("/slow", self.show),)

    async def show(self, request: web.Request) -> web.StreamResponse:
        return await looked_up(request, "<it>", self._find, self._answer)

    async def _find(self, bar: Bar) -> str:
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        with bar(1) as advance:
            advance(1)
        if self.fails is not None:
            raise self.fails
        return "<found>"

    def _answer(self, found: str) -> Answer:
        return Answer(
            template="problem_content.html",
            context={"problem": Problem(HTTPStatus.OK, "x", found), "detail": found},
            document={"found": found},
            location=self.location,
        )


@pytest.fixture
def slow(_patient: None, monkeypatch: pytest.MonkeyPatch) -> Slow:
    monkeypatch.setattr(looking, "PATIENCE_S", 0.01)
    return Slow()


async def test_a_page_that_takes_long_begins_at_once(begin: Begin, slow: Slow) -> None:
    client = await begin(routes=slow.routes)
    answer = await client.get("/slow")
    began = await answer.content.readuntil(b"</p>\n") + await answer.content.readuntil(b"</p>\n")
    assert b"Looking for &lt;it&gt;" in began
    slow.go_on.set()
    rest = (await answer.content.read()).decode()
    assert "&lt;found&gt;" in rest
    assert rest.rstrip().endswith("</html>")


async def test_a_page_that_has_begun_goes_to_where_it_is_shown(begin: Begin, slow: Slow) -> None:
    client = await begin(routes=slow.routes)
    slow.location = "/commands/a%22b"
    answer = await client.get("/slow")
    slow.go_on.set()
    assert 'http-equiv="refresh" content="0; url=/commands/a%22b"' in await answer.text()


async def test_json_is_whole_however_long_it_takes(begin: Begin, slow: Slow) -> None:
    client = await begin(routes=slow.routes)
    asking = asyncio.create_task(client.get("/slow", headers=JSON))
    await asyncio.sleep(0.05)
    assert not asking.done()
    slow.go_on.set()
    assert await (await asking).json() == {"schema": 1, "found": "<found>"}


async def test_what_fails_after_the_page_has_begun_is_said_in_it(begin: Begin, slow: Slow) -> None:
    client = await begin(routes=slow.routes)
    slow.fails = BridgeError("it <broke>")
    answer = await client.get("/slow")
    slow.go_on.set()
    text = await answer.text()
    assert answer.status == 200
    assert "it &lt;broke&gt;" in text
    assert text.rstrip().endswith("</html>")


async def test_a_defect_after_the_page_has_begun_is_said_in_it(begin: Begin, slow: Slow) -> None:
    client = await begin(routes=slow.routes)
    slow.fails = ZeroDivisionError("secret")
    answer = await client.get("/slow")
    slow.go_on.set()
    text = await answer.text()
    assert "this is a defect of the console" in text
    assert "secret" not in text
    assert text.count("<html") == text.count("</html>") == 1
    assert "HTTP/1.1" not in text


async def test_nobody_looks_for_ever(
    begin: Begin, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "LASTS_S", 0.05)
    client = await begin(routes=slow.routes)
    assert "the command line has more patience" in await (await client.get("/slow")).text()
    assert slow.is_cancelled
    assert (await client.get("/slow", headers=JSON)).status == 504
