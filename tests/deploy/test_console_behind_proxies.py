"""nginx and Caddy in front of a console, with their files from deploy/: a real one, and one that
shows what arrives."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from support.deployed_proxies import CONSOLE, caddy, free_ports, nginx, process
from support.ports import free_port
from support.programs import Programs
from support.waiting import wait_until

TOKEN = "correct-horse-battery"


class Upstream:
    """One that shows what arrives, and has an answer that goes on."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        application = web.Application()
        application.add_routes([web.get("/live", self._live), web.get("/headers", self._headers)])
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)

    async def start(self, port: int) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _live(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await self.may_end.wait()
        return response

    async def _headers(self, request: web.Request) -> web.Response:
        return web.json_response(dict(request.headers))


class Site:
    """The console's site of a running proxy; whose certificate it has is not what this is about."""

    def __init__(self, port: int, console_port: int) -> None:
        self.console_port = console_port
        self.url = URL(f"https://{CONSOLE}:{port}")
        self._port = port

    @asynccontextmanager
    async def visitor(self) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.TCPConnector(ssl=ssl._create_unverified_context(), resolver=Loopback())
        async with aiohttp.ClientSession(self.url, connector=connector) as session:
            yield session

    async def answers(self) -> bool:
        try:
            async with self.visitor() as visitor, visitor.get("/") as answer:
                return answer.status > 0
        except aiohttp.ClientConnectionError:
            return False


class Loopback(aiohttp.abc.AbstractResolver):
    """Every name is this machine's."""

    async def resolve(
        self, host: str, port: int = 0, family: object = None
    ) -> list[aiohttp.abc.ResolveResult]:
        return [
            {
                "hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0,
                "flags": 0,
            }
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing to close."""


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    ports = free_ports()
    command, environ = request.param(tmp_path, ports)
    async with process(command, environ, tmp_path / "log"):
        site = Site(ports["console_proxy"], ports["console"])
        await wait_until(site.answers, f"{command[0]} to answer; see {tmp_path / 'log'}")
        yield site


async def test_what_goes_on_arrives_as_it_is_written(site: Site) -> None:
    upstream = Upstream()
    await upstream.start(site.console_port)
    try:
        async with site.visitor() as visitor, visitor.get("/live") as answer:
            async with asyncio.timeout(30):
                assert await answer.content.readline() == b"data: first\n"
            upstream.may_end.set()
            await answer.read()
    finally:
        await upstream.stop()


async def test_the_console_hears_who_calls_by_which_name_and_over_tls(site: Site) -> None:
    upstream = Upstream()
    await upstream.start(site.console_port)
    try:
        claimed = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http"}
        async with site.visitor() as visitor, visitor.get("/headers", headers=claimed) as answer:
            heard = json.loads(await answer.text())
    finally:
        await upstream.stop()
    assert heard["X-Forwarded-For"] == "127.0.0.1"
    assert heard["X-Forwarded-Proto"] == "https"
    assert heard["Host"] == site.url.authority


async def test_people_log_in_and_the_cookie_is_for_tls_only(site: Site, programs: Programs) -> None:
    environ = {
        "NB_BRIDGE_CONSOLE_PORT": str(site.console_port),
        "NB_BRIDGE_CONSOLE_NAMES": CONSOLE,
        "NB_BRIDGE_CONSOLE_TOKENS": TOKEN,
        "NB_BRIDGE_TRUSTED_PROXIES": "127.0.0.1",
        "NB_BRIDGE_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
    }
    programs.start("console", environ=environ).prints("Ctrl-C ends it")
    async with site.visitor() as visitor:
        async with visitor.get("/settings") as answer:
            assert answer.url.path == "/log-in"
        # As a browser does that does not say Sec-Fetch-Site.
        origin = {"Origin": str(site.url.origin())}
        form = {"token": TOKEN, "next": "/settings"}
        async with visitor.post("/log-in", data=form, headers=origin) as answer:
            assert (answer.status, answer.url.path) == (200, "/settings")
            (redirect,) = answer.history
            assert "; Secure" in redirect.headers["Set-Cookie"]
