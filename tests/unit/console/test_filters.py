"""How templates write moments, numbers and ids."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from bridge.console import filters
from bridge.console.page import ID, id_in

from .conftest import Begin


def test_moments() -> None:
    assert filters.moment(1_795_438_561_534) == (
        '<time datetime="2026-11-23T12:56:01.534Z" title="2026-11-23 12:56:01 UTC">'
        "2026-11-23 12:56:01 UTC</time>"
    )
    assert filters.moment(None) == filters.NONE
    assert filters.moment(10**20) == str(10**20)


def test_numbers() -> None:
    assert filters.count(1_000_000) == "1\u202f000\u202f000"
    assert filters.count(None) == filters.span(None) == filters.size(None) == filters.NONE
    assert [filters.size(n) for n in (0, 1023, 1024, 20 * 2**20, 5 * 2**50)] == [
        "0 B", "1023 B", "1.0 KiB", "20 MiB", "5120 TiB",
    ]  # fmt: skip
    assert filters.span(1500) == "2 s"


def test_texts() -> None:
    assert filters.line("a\nb\u202ec") == "a\\nb\\u202ec"
    assert filters.line("") == filters.line(None) == filters.lines(None) == filters.NONE
    assert filters.lines("a\n\x1b") == "a\n\\x1b"


def test_queries() -> None:
    assert filters.query("/dead", group="a&b", device=None, error="") == "/dead?group=a%26b"
    assert filters.query("/dead") == "/dead"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256))
def test_any_id_has_a_link(id_: str) -> None:
    parts = urlsplit(filters.link("commands", id_))
    found = parse_qs(parts.query).get("id", [""])[0] or unquote(parts.path.split("/")[2])
    assert found == id_


@pytest.mark.parametrize(
    "id_",
    [
        "c-1", "a/b", "/", "//", "a%2Fb", "%", "%25", "100%", "<img src=x onerror=alert(1)>", ".",
        "..", "../x", "a?b#c", "a+b c", "é", "设备", "\x00", "\r\n", "a;b", "\\", "x" * 256,
    ],
)  # fmt: skip
async def test_an_id_comes_back_as_it_was(begin: Begin, id_: str) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.json_response({"id": id_in(request)})

    client = await begin(routes=[web.get(f"/echo/{ID}", echo)])
    answer = await client.get(URL(filters.link("echo", id_), encoded=True))
    assert (await answer.json())["id"] == id_


@pytest.mark.parametrize("path", ["/echo/", "/echo/" + "x" * 257, "/echo/?id="])
async def test_what_no_id_can_be_is_refused(begin: Begin, path: str) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.json_response({"id": id_in(request)})

    client = await begin(routes=[web.get(f"/echo/{ID}", echo)])
    assert (await client.get(path)).status == 400
