"""nginx and Caddy in front of the ingresses: the real programs, with their files from deploy/.

Behind them are two that answer as ingresses do, on one port of two loopback addresses.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from bridge.settings import Settings
from support.deploy_tools import DEPLOY, ROOT, check
from support.deployed_proxies import caddy, free_ports, nginx, process
from support.waiting import wait_until

CALLBACK_PATHS = [*Settings().callback_paths, *Settings().notify_paths]
OTHER_PATHS = ["/", "/metrics", "/v1.0.0/messageReceiver/cmd/x", "/v1.0.0/messageReceiverX",
               "/v1x0.0/messageReceiver/cmd", "/x/v1.0.0/messageReceiver/cmd"]  # fmt: skip


class Upstream:
    """One that answers callbacks, and what it was asked."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.seen: list[web.BaseRequest] = []
        self.dies = False
        """Whether it ends with a callback in its hands."""
        self._runner: web.ServerRunner | None = None

    async def start(self, port: int, admin_port: int) -> None:
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._runner.setup()
        for each in (port, admin_port):
            await web.TCPSite(self._runner, self.address, each).start()

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.path != "/readyz":
            await request.read()
            self.seen.append(request)
            if self.dies and request.transport is not None:
                request.transport.abort()
        return web.Response(text=self.address)


class Proxy:
    """A running proxy with TLS, and the two behind it."""

    def __init__(self, url: str, http: aiohttp.ClientSession, upstreams: list[Upstream]) -> None:
        self._url, self._http = url, http
        self.first, self.second = upstreams

    async def post(self, path: str, body: bytes | BytesIO = b"{}") -> tuple[int, str]:
        """Status and text of the answer."""
        headers = {"X-Forwarded-For": "203.0.113.9"}
        async with self._http.post(self._url + path, data=body, headers=headers) as answer:
            return answer.status, await answer.text()


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
async def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Proxy]:
    ports = free_ports()
    command, environ = request.param(tmp_path, ports)
    async with AsyncExitStack() as stack:
        upstreams = [Upstream("127.0.0.1"), Upstream("127.0.0.2")]
        for upstream in upstreams:
            await upstream.start(ports["upstream"], ports["admin"])
            stack.push_async_callback(upstream.stop)
        await stack.enter_async_context(process(command, environ, tmp_path / "log"))
        # Whom the certificate is of is not what these tests are about.
        context = ssl._create_unverified_context()
        connector = aiohttp.TCPConnector(ssl=context)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        started = Proxy(f"https://localhost:{ports['proxy']}", http, upstreams)

        async def answers() -> bool:
            try:
                return (await started.post("/"))[0] == 404
            except aiohttp.ClientConnectionError:
                return False

        await wait_until(answers, f"{command[0]} to answer; see {tmp_path / 'log'}")
        yield started


@pytest.mark.parametrize("path", CALLBACK_PATHS)
async def test_a_callback_reaches_the_first_ingress(proxy: Proxy, path: str) -> None:
    assert await proxy.post(path) == (200, "127.0.0.1")
    (request,) = proxy.first.seen
    # The caller's own claim is not passed on: an ingress that trusts the proxy would believe it.
    assert request.headers.getall("X-Forwarded-For") == ["127.0.0.1"]


async def test_nothing_but_callbacks_reaches_an_ingress(proxy: Proxy) -> None:
    for path in OTHER_PATHS:
        status, _ = await proxy.post(path)
        assert status == 404, path
    assert proxy.first.seen == proxy.second.seen == []


async def test_a_callback_goes_to_the_second_ingress_when_the_first_is_gone(proxy: Proxy) -> None:
    await proxy.first.stop()
    for _ in range(5):
        assert await proxy.post(CALLBACK_PATHS[0]) == (200, "127.0.0.2")


async def test_a_callback_that_an_ingress_dies_with_is_given_to_the_second(proxy: Proxy) -> None:
    proxy.first.dies = True
    body = b"x" * 60_000  # more than one read
    assert await proxy.post(CALLBACK_PATHS[0], body) == (200, "127.0.0.2")
    assert len(proxy.first.seen) == 1
    assert await proxy.second.seen[0].read() == body


async def test_a_body_that_no_callback_has_is_refused_at_the_door(proxy: Proxy) -> None:
    longest = b"x" * Settings().max_body_bytes
    assert await proxy.post(CALLBACK_PATHS[0], BytesIO(longest)) == (200, "127.0.0.1")
    status, _ = await proxy.post(CALLBACK_PATHS[0], BytesIO(longest + b"x"))
    assert status == 413


def test_nginx_finds_no_fault(tmp_path: Path) -> None:
    ports = free_ports()
    command, _ = nginx(tmp_path, ports)
    check(*command, "-t")


def test_caddy_finds_no_fault_and_would_write_it_the_same_way() -> None:
    homes = {name: str(ROOT / ".deploy-tools") for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    check("caddy", "adapt", "--config", "Caddyfile", environ=homes)
    assert check("caddy", "fmt", "Caddyfile") == (DEPLOY / "Caddyfile").read_text()
