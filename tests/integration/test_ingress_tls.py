"""TLS: what is spoken, who must show a certificate, and files that change meanwhile."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.errors import UsageError
from bridge.ingress.app import Ingress
from bridge.settings import Settings
from support import servers
from support.certificates import Authority, Pair
from support.ingresses import body, post, running, settings_for
from support.waiting import wait_until

pytestmark = pytest.mark.real

CASES = json.loads((Path(__file__).parents[1] / "data" / "cases.json").read_text())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def tls_settings(tmp_path: Path, redis: servers.Redis, pair: Pair, **more: Any) -> Settings:
    return settings_for(
        tmp_path, redis.url, redis.namespace, tls_cert=pair.cert, tls_key=pair.key, **more
    )


@asynccontextmanager
async def client(context: ssl.SSLContext, **more: Any) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector, **more) as session:
        yield session
        await asyncio.sleep(0)


async def serial_shown(ingress: Ingress, context: ssl.SSLContext) -> str:
    """Which certificate a new connection is shown."""
    host, _, port = ingress.callback_url.split("/")[2].rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    serial = str(writer.get_extra_info("peercert")["serialNumber"])
    writer.close()
    await writer.wait_closed()
    return serial


async def test_every_case_over_tls_with_tokens_on(
    tmp_path: Path, real_redis: servers.Redis, authority: Authority
) -> None:
    settings = tls_settings(
        tmp_path, real_redis, authority.issue("server"), tokens=("t1", "t2"), max_body_bytes=65536
    )
    async with running(settings) as ingress, client(authority.client_context()) as http:
        assert ingress.callback_url.startswith("https://")
        for case in CASES:
            raw = case["body_base64"]
            sent = base64.b64decode(raw) if raw is not None else case["body"].encode()
            for token, status in (("t2", case["expect"]["http"]), ("wrong", 401)):
                headers = {**case["headers"], "Authorization": f"Bearer {token}"}
                assert await post(http, ingress.callback_url, sent, headers=headers) == status, (
                    case["name"]
                )


async def test_a_foreign_network_is_refused(
    tmp_path: Path, real_redis: servers.Redis, authority: Authority
) -> None:
    from ipaddress import ip_network

    settings = tls_settings(
        tmp_path,
        real_redis,
        authority.issue("server"),
        allowed_networks=(ip_network("192.0.2.0/24"),),
    )
    async with running(settings) as ingress, client(authority.client_context()) as http:
        assert await post(http, ingress.callback_url, body()) == 403
    assert not await real_redis.client.exists(real_redis.keys.quarantine)


async def test_refused_callers_leave_nothing_in_redis(
    tmp_path: Path, real_redis: servers.Redis
) -> None:
    settings = settings_for(tmp_path, real_redis.url, real_redis.namespace, tokens=("t",))
    async with running(settings) as ingress, aiohttp.ClientSession() as http:
        for data in (body(), b"{}", b"not json"):
            assert await post(http, ingress.callback_url, data) == 401
        keys = await real_redis.client.keys(f"*{real_redis.namespace}*stream*")
        assert keys == []
        assert not await real_redis.client.exists(real_redis.keys.quarantine)


async def test_old_protocol_versions_are_not_spoken(
    tmp_path: Path, real_redis: servers.Redis, authority: Authority
) -> None:
    async with running(tls_settings(tmp_path, real_redis, authority.issue("server"))) as ingress:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = authority.client_context()
            context.minimum_version = context.maximum_version = version
            assert await serial_shown(ingress, context)
        old = authority.client_context()
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = ssl.TLSVersion.TLSv1_1
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await serial_shown(ingress, old)


async def test_with_a_client_ca_only_its_clients_are_let_in(
    tmp_path: Path, real_redis: servers.Redis, authority: Authority
) -> None:
    platform_ca = Authority(tmp_path / "platform")
    settings = tls_settings(
        tmp_path, real_redis, authority.issue("server"), tls_client_ca=platform_ca.pem
    )
    ours = platform_ca.issue("client", "platform.example")
    foreign = Authority(tmp_path / "foreign").issue("client", "platform.example")
    async with running(settings) as ingress:
        async with client(authority.client_context(ours)) as http:
            assert await post(http, ingress.callback_url, body()) == 200
        for pair in (None, foreign):
            async with client(authority.client_context(pair)) as http:
                with pytest.raises(aiohttp.ClientError):
                    await post(http, ingress.callback_url, body())


@pytest.mark.parametrize("how", ["written over", "symlink swapped"])
async def test_a_new_certificate_is_used_without_dropping_connections(
    tmp_path: Path, real_redis: servers.Redis, authority: Authority, how: str
) -> None:
    old, new = authority.issue("old"), authority.issue("new")
    folder = tmp_path / "live"
    if how == "symlink swapped":  # as Kubernetes and certbot do it
        for name, pair in (("1", old), ("2", new)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "tls.crt").write_bytes(pair.cert.read_bytes())
            (tmp_path / name / "tls.key").write_bytes(pair.key.read_bytes())
        folder.symlink_to(tmp_path / "1")
    else:
        folder.mkdir()
        (folder / "tls.crt").write_bytes(old.cert.read_bytes())
        (folder / "tls.key").write_bytes(old.key.read_bytes())
    live = Pair(folder / "tls.crt", folder / "tls.key")
    context = authority.client_context()
    async with running(tls_settings(tmp_path, real_redis, live)) as ingress:
        before = await serial_shown(ingress, context)
        trace = aiohttp.TraceConfig()
        made: list[int] = []

        async def count(*_: Any) -> None:
            made.append(1)

        trace.on_connection_create_end.append(count)
        async with client(context, trace_configs=[trace]) as http:
            assert await post(http, ingress.callback_url, body()) == 200
            if how == "symlink swapped":
                (tmp_path / "next").symlink_to(tmp_path / "2")
                os.replace(tmp_path / "next", folder)
            else:
                live.cert.write_bytes(new.cert.read_bytes())
                live.key.write_bytes(new.key.read_bytes())

            async def is_new() -> bool:
                return await serial_shown(ingress, context) != before

            await wait_until(is_new, "the new certificate")
            assert await post(http, ingress.callback_url, body(code="DELIVERED")) == 200
        assert len(made) == 1  # the connection made under the old certificate went on


async def test_a_new_pair_that_does_not_fit_changes_nothing(
    tmp_path: Path, real_redis: servers.Redis, authority: Authority
) -> None:
    live, other = authority.issue("live"), authority.issue("other")
    context = authority.client_context()
    async with running(tls_settings(tmp_path, real_redis, live)) as ingress:
        before = await serial_shown(ingress, context)
        live.cert.write_bytes(other.cert.read_bytes())

        async def has_failed() -> bool:
            async with (
                aiohttp.ClientSession() as http,
                http.get(ingress.admin_url + "/metrics") as answer,
            ):
                return 'nb_bridge_tls_reloads_total{result="failed"}' in await answer.text()

        await wait_until(has_failed, "the reload to fail")
        assert await serial_shown(ingress, context) == before
        live.key.write_bytes(other.key.read_bytes())

        async def is_new() -> bool:
            return await serial_shown(ingress, context) != before

        await wait_until(is_new, "the new certificate")


async def test_a_client_ca_that_changes_lets_its_new_clients_in_and_the_old_ones_out(
    tmp_path: Path, real_redis: servers.Redis, authority: Authority
) -> None:
    first, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    live_ca = tmp_path / "clients.pem"
    live_ca.write_bytes(first.pem.read_bytes())
    settings = tls_settings(tmp_path, real_redis, authority.issue("server"), tls_client_ca=live_ca)
    old = authority.client_context(first.issue("client", "a.example"))
    new = authority.client_context(second.issue("client", "b.example"))

    async def is_let_in(context: ssl.SSLContext) -> bool:
        async with client(context) as http:
            try:
                return await post(http, ingress.callback_url, body()) == 200
            except aiohttp.ClientError:
                return False

    async with running(settings) as ingress:
        assert await is_let_in(old)
        assert not await is_let_in(new)
        live_ca.write_bytes(second.pem.read_bytes())
        await wait_until(lambda: is_let_in(new), "the new CA")
        assert not await is_let_in(old)


def mismatched(pair: Pair, other: Pair) -> Pair:
    return Pair(pair.cert, other.key)


async def test_files_that_cannot_be_used_are_told_at_the_start(
    tmp_path: Path, real_redis: servers.Redis, authority: Authority
) -> None:
    good, other = authority.issue("good"), authority.issue("other")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    for pair, told in (
        (mismatched(good, other), "does not belong"),
        (Pair(garbage, good.key), "PEM"),
        (Pair(good.cert, garbage), "PEM"),
        (Pair(tmp_path / "missing.pem", good.key), "NB_BRIDGE_TLS_CERT .* cannot be read"),
    ):
        ingress = Ingress(tls_settings(tmp_path, real_redis, pair))
        with pytest.raises(UsageError, match=told):
            await ingress.start()
    settings = tls_settings(tmp_path, real_redis, good, tls_client_ca=garbage)
    with pytest.raises(UsageError, match="NB_BRIDGE_TLS_CLIENT_CA"):
        await Ingress(settings).start()
