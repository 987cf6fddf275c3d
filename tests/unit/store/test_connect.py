"""What a REDIS_URL of several servers means for each of them."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import SSLConnection

from bridge.errors import RedisUnavailableError, SettingsError, UsageError
from bridge.settings import load
from bridge.store.connect import connection_pool, open_link
from bridge.store.link import command


def pools(monkeypatch: pytest.MonkeyPatch) -> list[ConnectionPool]:
    """Every pool that is made from now on."""
    made: list[ConnectionPool] = []
    original = ConnectionPool.from_url.__func__  # type: ignore[attr-defined]

    def from_url(cls: Any, *args: Any, **options: Any) -> ConnectionPool:
        made.append(original(cls, *args, **options))
        return made[-1]

    monkeypatch.setattr(ConnectionPool, "from_url", classmethod(from_url))
    return made


def options(pool: ConnectionPool) -> dict[str, Any]:
    names = ("host", "port", "db", "username", "password", "ssl_ca_certs")
    return {name: pool.connection_kwargs[name] for name in names if name in pool.connection_kwargs}


def test_sentinels_and_primary_have_their_own_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    made = pools(monkeypatch)
    link: Any = open_link(
        "redis+sentinel://app:p%40ss@s1:5000,s2,[::1]:5001/main/3"
        "?sentinel_username=watch&sentinel_password=s%26cret",
        name="test",
    )
    watcher = {"username": "watch", "password": "s&cret"}
    assert [options(pool) for pool in made] == [
        {"host": "s1", "port": 5000, **watcher},
        {"host": "s2", "port": 26379, **watcher},
        {"host": "::1", "port": 5001, **watcher},
    ]
    primary = link._pool_for(("10.0.0.1", 6379))
    assert options(primary) == {
        "host": "10.0.0.1", "port": 6379, "db": 3, "username": "app", "password": "p@ss",
    }  # fmt: skip


def test_the_primarys_password_is_not_shown_to_the_sentinels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = pools(monkeypatch)
    open_link("redis+sentinel://:s3cret@s1/main", name="test")
    assert "password" not in options(made[0])


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_tls_and_its_options_hold_for_every_server(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    made = pools(monkeypatch)
    link: Any = open_link(
        f"redis+{kind}://h:1/main?ssl=true&ssl_ca_certs=/etc/ca.pem".replace(
            "/main", "/main" if kind == "sentinel" else ""
        ),
        name="test",
    )
    link._pool_for(("n", 2)) if kind == "sentinel" else link._link_to(("n", 2))
    for pool in made:
        assert pool.connection_class is SSLConnection
        assert options(pool)["ssl_ca_certs"] == "/etc/ca.pem"
    assert [options(pool)["host"] for pool in made][-1] == "n"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis+sentinel://h:1", "ends in its service"),
        ("redis+sentinel://h:1/main/x", "ends in its service"),
        ("redis+sentinel://h:one/main", "should be host:port"),
        ("redis+cluster://h:1,,h:2", "should be host:port"),
        ("redis+cluster://:s3/cret@h:1", "percent-encoded"),
        ("redis+sentinel://:s3/cret@h:1/main", "percent-encoded"),
        ("redis://:s3/cret@h:1", "percent-encoded"),
        ("redis://h:1/0?s3cret=1", "unknown"),
        ("redis+sentinel://h:1/main?s3cret=1", "unknown"),
        ("redis+cluster://h:1?s3cret=1", "unknown"),
        ("redis://h:1/0?ssl_ca_certs=/s3cret", "unknown"),
    ],
)
def test_a_url_that_cannot_work_is_told_without_repeating_it(url: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        open_link(url, name="test")
    assert "NB_BRIDGE_REDIS_URL" in str(raised.value)
    assert "s3" not in str(raised.value)


@pytest.mark.parametrize(
    "value", ["CERT_REQUIRED", "required", "ssl.CERT_REQUIRED", "Required", "CERT_OPTIONAL", "none"]
)
def test_how_python_names_the_checks_of_a_certificate_will_do(value: str) -> None:
    pool = connection_pool(f"rediss://h:1/0?ssl_cert_reqs={value}")
    short = value.lower().removeprefix("ssl.").removeprefix("cert_")
    assert pool.connection_kwargs["ssl_cert_reqs"] == short


def test_a_wrong_option_of_tls_is_named() -> None:
    with pytest.raises(UsageError, match="ssl_cert_reqs is one of required, optional and none"):
        connection_pool("rediss://h:1/0?ssl_cert_reqs=always")


def test_a_socket_takes_the_options_that_are_for_it() -> None:
    pool = connection_pool("unix:///run/redis.sock?db=2")
    assert pool.connection_kwargs["path"] == "/run/redis.sock"
    assert pool.connection_kwargs["db"] == 2


async def test_tls_to_a_port_that_does_not_speak_it_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        link = open_link(f"rediss://127.0.0.1:{port}", name="test")
        with pytest.raises(RedisUnavailableError, match="does not speak TLS"):
            await link.one(command("PING"), timeout_s=0.2)
        plain = open_link(f"redis://127.0.0.1:{port}", name="test")
        with pytest.raises(RedisUnavailableError) as raised:
            await plain.one(command("PING"), timeout_s=0.2)
        assert "TLS" not in str(raised.value)


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
parts = st.lists(
    words
    | st.sampled_from(
        ["host", ":", ":6379", ":²", ":99999", "@", "%", "[", "]", "[::1]", ",", "/", "/0", "?",
         "&", "ssl=true", "db=x", "socket_timeout=1", "main"]
    ),
    max_size=6,
)  # fmt: skip
urls = st.builds(
    lambda scheme, rest: f"{scheme}://{''.join(rest)}",
    st.sampled_from(["redis", "rediss", "unix", "redis+sentinel", "redis+cluster"]),
    parts,
)


@given(urls)
@example("redis+cluster://host:²")
@example("redis+sentinel://host:²/main")
@example("redis://host:²")
@example("redis+sentinel://host/main/²")
@example("rediss://host?ssl_cert_reqs=x")
async def test_any_url_is_a_link_or_an_error_of_its_own(url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NB_BRIDGE_REDIS_URL", url)
        try:
            link = open_link(load().redis_url, name="test")
        except (SettingsError, UsageError):
            return
        await link.close()
