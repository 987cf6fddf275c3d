"""Who gets into the console, and what is not let through."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import aiohttp
import pytest
from aiohttp import web

from bridge.console.door import attempts, sessions
from bridge.console.door.attempts import LogInAttempts
from bridge.console.door.authentication import ANYBODY
from bridge.console.door.requests import MAX_LOG_IN_BYTES
from bridge.console.door.sessions import Sessions
from bridge.console.page import WHO

from .conftest import Begin, Client, Clock

OURS = {"Sec-Fetch-Site": "same-origin"}
JSON = {"Accept": "application/json"}
PAIR = {"user": "ada", "password": "pass:word"}


async def who(request: web.Request) -> web.Response:
    return web.Response(text=request[WHO])


async def act(request: web.Request) -> web.Response:
    return web.Response(text="done")


ROUTES = (web.get("/who", who), web.post("/act", act))


async def log_in(client: Client, data: dict[str, str], **headers: str) -> aiohttp.ClientResponse:
    return await client.post("/log-in", data=data, headers=OURS | headers, allow_redirects=False)


# --- names


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8090", 200),
        ("localhost", 200),
        ("[::1]:8090", 200),
        ("console.example.com", 200),
        ("evil.example.com", 421),
        ("127.0.0.1.evil.example", 421),
    ],
)
async def test_it_answers_to_its_own_names(begin: Begin, host: str, status: int) -> None:
    client = await begin(names=["console.example.com"])
    assert (await client.get("/", headers={"Host": host})).status == status


# --- what changes something


async def test_nothing_can_be_done_where_actions_are_off(begin: Begin) -> None:
    client = await begin(routes=ROUTES)
    answer = await client.post("/act", headers=OURS)
    assert answer.status == 403
    assert "NB_BRIDGE_CONSOLE_ACTIONS" in await answer.text()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://console"}, 403),
        ({"Origin": "http://console"}, 200),
        ({"Origin": "https://console"}, 200),
        ({"Origin": "http://console:81"}, 403),
        ({"Origin": "http://evil.example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[oops"}, 403),
        ({}, 403),
    ],
)
async def test_only_our_own_pages_change_something(
    begin: Begin, headers: dict[str, str], status: int
) -> None:
    client = await begin(has_actions=True, routes=ROUTES)
    answer = await client.post("/act", headers={"Host": "console", **headers})
    assert answer.status == status


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate",
          "Sec-Fetch-Dest": "document"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate",
          "Sec-Fetch-Dest": "iframe"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "something new", "Sec-Fetch-Mode": "no-cors"}, 403),
    ],
)  # fmt: skip
async def test_pages_of_other_sites_may_lead_here_and_no_more(
    begin: Begin, method: str, headers: dict[str, str], status: int
) -> None:
    client = await begin(routes=ROUTES)
    assert (await client.request(method, "/who", headers=headers)).status == status


async def test_a_body_is_read_within_bounds(begin: Begin) -> None:
    client = await begin(tokens=["good"], has_actions=True, routes=ROUTES)
    long = await log_in(client, {"token": "x" * MAX_LOG_IN_BYTES})
    assert long.status == 413
    packed = await log_in(client, {"token": "x"}, **{"Content-Encoding": "gzip"})
    assert packed.status == 415


# --- log-in


async def test_without_credentials_everybody_is_in_and_there_is_no_form(begin: Begin) -> None:
    client = await begin(routes=ROUTES)
    assert await (await client.get("/who")).text() == ANYBODY
    assert (await client.get("/log-in")).status == 404


async def test_people_are_sent_to_the_form_and_back(begin: Begin) -> None:
    client = await begin(tokens=["good"], pairs=["ada:pass:word"], routes=ROUTES)
    sent = await client.get("/who?a=1&b=%25/%2B", allow_redirects=False)
    assert sent.status == 303
    form = await (await client.get(sent.headers["Location"])).text()
    assert 'name="next" value="/who?a=1&amp;b=%25/%2B"' in form
    answer = await log_in(client, PAIR | {"next": "/who?a=1&b=%25/%2B"})
    assert (answer.status, answer.headers["Location"]) == (303, "/who?a=1&b=%25/%2B")
    cookie = answer.headers["Set-Cookie"]
    for attribute in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="):
        assert attribute in cookie
    assert "Secure" not in cookie
    assert await (await client.get("/who")).text() == "ada"


@pytest.mark.parametrize(
    "wanted", ["", "//evil.example.com", "/\\evil.example.com", "https://evil.example.com", "/\r\n"]
)
async def test_nobody_is_sent_elsewhere_after_logging_in(begin: Begin, wanted: str) -> None:
    client = await begin(tokens=["good"])
    answer = await log_in(client, {"token": "good", "next": wanted})
    assert answer.headers["Location"] == "/"


async def test_the_cookie_is_for_tls_only_where_a_proxy_of_ours_speaks_it(begin: Begin) -> None:
    client = await begin(tokens=["good"], proxies=[ip_network("127.0.0.1/32")])
    answer = await log_in(client, {"token": "good"}, **{"X-Forwarded-Proto": "https"})
    assert "Secure" in answer.headers["Set-Cookie"]
    stranger = await begin(tokens=["good"])
    answer = await log_in(stranger, {"token": "good"}, **{"X-Forwarded-Proto": "https"})
    assert "Secure" not in answer.headers["Set-Cookie"]


async def test_wrong_credentials_get_the_form_again(begin: Begin) -> None:
    client = await begin(tokens=["good"], pairs=["ada:pass:word"])
    for data in ({"token": "bad"}, PAIR | {"password": "pass"}, {}, {"user": "ada"}):
        answer = await log_in(client, data)
        assert answer.status == 401
        assert "these credentials are wrong" in await answer.text()
        assert "Set-Cookie" not in answer.headers


async def test_who_logged_out_is_out(begin: Begin) -> None:
    client = await begin(tokens=["good"], routes=ROUTES)
    session = (await log_in(client, {"token": "good"})).cookies["console"].value
    assert (await client.get("/who", allow_redirects=False)).status == 200
    await client.post("/log-out", headers=OURS, allow_redirects=False)
    client.session.cookie_jar.update_cookies({"console": session})
    assert (await client.get("/who", allow_redirects=False)).status == 303


async def test_a_session_ends_with_its_shift(begin: Begin, clock: Clock) -> None:
    client = await begin(tokens=["good"], routes=ROUTES)
    await log_in(client, {"token": "good"})
    clock.now_s += sessions.LASTS_S
    assert (await client.get("/who", allow_redirects=False)).status == 303


async def test_programs_send_credentials_themselves(begin: Begin) -> None:
    client = await begin(tokens=["good"], pairs=["ada:pass:word"], routes=ROUTES)
    bearer = await client.get("/who", headers={"Authorization": "Bearer good"})
    assert (await bearer.text()).startswith("token ")
    basic = await client.get("/who", headers={"Authorization": "Basic YWRhOnBhc3M6d29yZA=="})
    assert await basic.text() == "ada"
    for headers in ({}, {"Authorization": "Bearer bad"}, {"Authorization": "Basic ?"}):
        answer = await client.get("/who", headers=JSON | headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.content_type == "application/problem+json"


async def test_files_are_for_everybody_so_that_the_form_has_its_looks(begin: Begin) -> None:
    client = await begin(tokens=["good"])
    assert (await client.get("/assets/console.css", allow_redirects=False)).status == 200


async def test_guessing_is_slowed_down(begin: Begin, clock: Clock) -> None:
    client = await begin(tokens=["good"], routes=ROUTES)
    for _ in range(attempts.ALLOWED):
        assert (await log_in(client, {"token": "bad"})).status == 401
    late = await log_in(client, {"token": "good"})
    assert late.status == 429
    assert int(late.headers["Retry-After"]) > 0
    header = await client.get("/who", headers=JSON | {"Authorization": "Bearer good"})
    assert header.status == 429
    clock.now_s += attempts.WITHIN_S
    assert (await log_in(client, {"token": "good"})).status == 303


async def test_guessing_is_counted_by_the_browser_behind_a_proxy_of_ours(begin: Begin) -> None:
    client = await begin(tokens=["good"], proxies=[ip_network("127.0.0.1/32")])
    for _ in range(attempts.ALLOWED + 1):
        answer = await log_in(client, {"token": "bad"}, **{"X-Forwarded-For": "192.0.2.1"})
    assert answer.status == 429
    other = await log_in(client, {"token": "good"}, **{"X-Forwarded-For": "192.0.2.2"})
    assert other.status == 303


# --- bounds


def test_sessions_are_bounded(clock: Clock) -> None:
    kept = Sessions(clock)
    names = [kept.begin("ada") for _ in range(sessions.MAX_SESSIONS + 1)]
    assert kept.who(names[0]) is None
    assert kept.who(names[-1]) == "ada"
    kept.end(names[-1])
    kept.end("never began")
    assert kept.who(names[-1]) is None


def test_sources_are_bounded_and_a_network_of_ipv6_is_one(clock: Clock) -> None:
    kept = LogInAttempts(clock)
    first = ip_address("2001:db8::1")
    for _ in range(attempts.ALLOWED):
        kept.failed(first)
    assert kept.wait_s(ip_address("2001:db8::2")) > 0
    for number in range(attempts.MAX_SOURCES):
        kept.failed(ip_address(number))
    assert kept.wait_s(first) == 0
    assert kept.wait_s(None) == 0


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_who_watches_over_processes_needs_no_credentials(begin: Begin, path: str) -> None:
    client = await begin(tokens=["sesame"])
    answer = await client.get(path)
    assert (answer.status, await answer.json()) == (200, {"ok": True, "reasons": []})
    assert (await client.get(path, headers={"Host": "evil.example.com"})).status == 421
