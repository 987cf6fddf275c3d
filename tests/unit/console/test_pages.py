"""What every page of the console has, and what the first ones show."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from bridge.console.headers import HEADERS
from bridge.console.live.hub import OF_LATE_S
from bridge.errors import BridgeError, MetaMismatchError, RedisRefusesError, UsageError
from bridge.http.problem import CONTENT_TYPE
from bridge.operations import findings
from bridge.operations.promise import Report
from bridge.settings import Shown

from .conftest import Begin, Client, Clock, World

JSON = {"Accept": "application/json"}
HTML = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize("path", ["/", "/settings", "/nothing", "/assets/console.css", "/assets/x"])
@pytest.mark.parametrize("asked", [HTML, JSON])
async def test_every_answer_tells_browsers_what_they_may_not(
    client: Client, path: str, asked: dict[str, str]
) -> None:
    answer = await client.get(path, headers=asked)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "Cache-Control" in answer.headers


async def test_a_page_is_what_the_command_line_prints_where_json_is_asked_for(
    client: Client, world: World
) -> None:
    world.findings = [findings.problem("a", "b", "c")]
    overview = await (await client.get("/", headers=JSON)).json()
    assert overview["schema"] == 1
    assert overview["redis"]["up"] is False
    settings = await (await client.get("/settings", headers=JSON)).json()
    assert settings == {
        "schema": 1,
        "settings": [],
        "ok": False,
        "findings": [{"name": "a", "level": "problem", "found": "b", "advice": "c"}],
    }


async def test_the_overview_is_there_while_redis_is_away(client: Client) -> None:
    answer = await client.get("/", headers=HTML)
    assert answer.status == 200
    assert "Redis is away" in await answer.text()


async def test_what_strangers_wrote_is_escaped(client: Client, world: World) -> None:
    world.findings = [findings.ok("<img src=x onerror=alert(1)>", "\x1b[31m<script>")]
    world.rows = [
        Shown(
            name="n", variable="N", value="<i>", default="", source="file", used_by="both", doc="d"
        )
    ]
    text = await (await client.get("/settings")).text()
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "\\x1b[31m&lt;script&gt;" in text
    assert "&lt;i&gt;" in text


@pytest.mark.parametrize("asked", [HTML, JSON])
async def test_what_is_not_there(client: Client, asked: dict[str, str]) -> None:
    answer = await client.get("/nothing/<script>", headers=asked)
    text = await answer.text()
    assert answer.status == 404
    assert "there is no such page" in text
    assert "script>" not in text.replace("</script>", "")
    if asked is JSON:
        assert answer.content_type == CONTENT_TYPE
        assert json.loads(text)["status"] == 404


async def test_another_method(begin: Begin) -> None:
    client = await begin(has_actions=True)
    answer = await client.delete("/settings", headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status == 405
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("not a time"), 400),
        (BridgeError("there is no group"), 409),
        (MetaMismatchError("of another version"), 409),
        (RedisRefusesError("no rights", code="NOPERM", what="GET"), 503),
        (ZeroDivisionError("secret"), 500),
    ],
)
async def test_failures_become_answers(begin: Begin, error: Exception, status: int) -> None:
    async def fail(request: web.Request) -> web.Response:
        raise error

    client = await begin(routes=[web.get("/fails", fail)])
    answer = await client.get("/fails?token=hidden")
    text = await answer.text()
    assert answer.status == status
    assert "secret" not in text
    assert (str(error) in text) is (status != 500)


async def test_a_page_that_needs_redis_says_that_it_is_away(begin: Begin, world: World) -> None:
    async def ask(request: web.Request) -> web.Response:
        raise world.away

    client = await begin(routes=[web.get("/asks", ask)])
    answer = await client.get("/asks", headers=JSON)
    assert answer.status == 503
    assert "Retry-After" in answer.headers
    assert (await answer.json())["detail"] == str(world.away)


async def test_assets_may_be_kept_by_the_address_of_their_content_only(client: Client) -> None:
    text = await (await client.get("/")).text()
    address = text.partition('rel="stylesheet" href="')[2].partition('"')[0]
    kept = await client.get(address)
    assert (kept.status, kept.content_type) == (200, "text/css")
    assert "immutable" in kept.headers["Cache-Control"]
    other = await client.get(address + "0")
    assert other.headers["Cache-Control"] == "no-cache"
    assert (await client.get("/assets/..%2fapp.py")).status == 404


async def test_no_page_has_a_script_or_a_style_of_its_own(client: Client) -> None:
    for path in ("/", "/settings", "/nothing"):
        text = await (await client.get(path)).text()
        assert "<style" not in text
        assert "style=" not in text
        assert "onclick" not in text
        assert text.count("<script") == text.count("<script src=")


async def test_pages_say_that_callbacks_are_answered_only_where_the_promise_does(
    begin: Begin, world: World, clock: Clock
) -> None:
    async def ask(request: web.Request) -> web.Response:
        raise world.away

    client = await begin(routes=[web.get("/asks", ask)])
    unsure = "Whether callbacks are answered: see"
    assert unsure in await (await client.get("/asks")).text()  # nobody has looked
    assert "Callbacks are answered 200 and kept" not in await (await client.get("/")).text()
    assert unsure in await (await client.get("/asks")).text()
    clock.now_s += 10
    world.reports = [Report(name="i", source="itself", age_ms=0, at_ms=1, path="spool")]
    assert "Callbacks are answered 200 and kept" in await (await client.get("/")).text()
    assert "Callbacks are still answered" in await (await client.get("/asks")).text()
    clock.now_s += OF_LATE_S
    assert unsure in await (await client.get("/asks")).text()


async def test_a_console_without_a_spool_does_not_say_that_it_is_empty(
    client: Client, world: World, clock: Clock
) -> None:
    assert "0 entries" in await (await client.get("/")).text()
    world.has_folder = False
    clock.now_s += 10
    text = await (await client.get("/")).text()
    assert "no spool on this machine" in text
    assert "0 entries" not in text
