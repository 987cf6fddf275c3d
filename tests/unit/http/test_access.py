"""Who is let in: credentials, networks, proxies; and what refusals cost."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any
from unittest import mock

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from bridge.http.access import AccessControl
from bridge.http.problem import Problem

NOW = [0.0]


def control(**settings: Any) -> AccessControl:
    for name in ("allowed_networks", "trusted_proxies"):
        settings[name] = [ip_network(it) for it in settings.get(name, ())]
    return AccessControl(clock=lambda: NOW[0], **settings)


def request(remote: str = "192.0.2.7", **headers: str) -> web.BaseRequest:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = mock.Mock()
    transport.get_extra_info = lambda key, default=None: (
        ((remote, 5000) if remote else "") if key == "peername" else default
    )
    return make_mocked_request("POST", "/", headers=names, transport=transport)


def answer(access: AccessControl, it: web.BaseRequest) -> int:
    try:
        access.check(it)
    except Problem as problem:
        return problem.status.value
    return 200


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def test_without_settings_everybody_is_let_in_and_that_is_known() -> None:
    access = control()
    assert access.is_open
    assert answer(access, request()) == 200


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer one", 200),
        ("bearer two", 200),
        ("BEARER  two ", 200),
        ("Bearer three", 401),
        ("Bearer on", 401),
        ("Bearer ", 401),
        ("one", 401),
        ("Basic one", 401),
        ("Bearer öne", 401),
    ],
)
def test_any_of_the_valid_tokens_lets_in(authorization: str, status: int) -> None:
    access = control(tokens=["one", "two"])
    assert not access.is_open
    assert answer(access, request(Authorization=authorization)) == status
    assert answer(access, request()) == 401


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (basic("user:pass:word"), 200),
        (basic("ünï:cødé"), 200),
        (basic("user:pass"), 401),
        (basic("user"), 401),
        ("Basic !!!", 401),
        ("Basic", 401),
    ],
)
def test_basic_credentials_are_compared_whole(authorization: str, status: int) -> None:
    access = control(basic_credentials=["user:pass:word", "ünï:cødé"])
    assert answer(access, request(Authorization=authorization)) == status


def test_a_secret_header_lets_in() -> None:
    access = control(secret_headers=["X-Secret:abc", "X-Secret:def", "X-Other: ghi"])
    assert answer(access, request(X_Secret="def")) == 200
    assert answer(access, request(x_other="ghi")) == 200
    assert answer(access, request(X_Secret="ghi")) == 401
    assert answer(access, request(X_Third="abc")) == 401


def test_of_several_kinds_of_credentials_one_is_enough() -> None:
    access = control(tokens=["t"], basic_credentials=["u:p"], secret_headers=["X-S:s"])
    for headers in (
        {"Authorization": "Bearer t"},
        {"Authorization": basic("u:p")},
        {"X_S": "s"},
        {"Authorization": "Bearer wrong", "X_S": "s"},
    ):
        assert answer(access, request(**headers)) == 200
    with pytest.raises(Problem) as caught:
        access.check(request())
    assert caught.value.headers["WWW-Authenticate"] == (
        'Bearer realm="nb-bridge", Basic realm="nb-bridge", Header realm="nb-bridge"'
    )


def test_networks_and_credentials_are_both_needed() -> None:
    access = control(tokens=["t"], allowed_networks=["192.0.2.0/24", "2001:db8::/32"])
    assert answer(access, request("192.0.2.1", Authorization="Bearer t")) == 200
    assert answer(access, request("2001:db8::5", Authorization="Bearer t")) == 200
    assert answer(access, request("::ffff:192.0.2.9", Authorization="Bearer t")) == 200
    assert answer(access, request("192.0.2.1")) == 401
    assert answer(access, request("198.51.100.1", Authorization="Bearer t")) == 403


@pytest.mark.parametrize(
    ("remote", "forwarded", "status"),
    [
        ("10.0.0.1", "192.0.2.1", 200),
        ("10.0.0.1", "198.51.100.1", 403),
        ("10.0.0.1", "192.0.2.1, 198.51.100.1", 403),  # the left one may be invented
        ("10.0.0.1", "198.51.100.1, 192.0.2.1", 200),
        ("10.0.0.1", "192.0.2.1, 10.0.0.2", 200),  # two proxies of ours
        ("10.0.0.1", "192.0.2.1:4711", 200),
        ("10.0.0.1", "[2001:db8::1]:443", 200),
        ("10.0.0.1", "nonsense", 403),
        ("10.0.0.1", "192.0.2.1,", 403),
        ("10.0.0.1", "", 403),
        ("198.51.100.1", "192.0.2.1", 403),  # no proxy of ours: its word counts for nothing
        ("192.0.2.1", "198.51.100.1", 200),
    ],
)
def test_only_trusted_proxies_may_say_who_called(remote: str, forwarded: str, status: int) -> None:
    access = control(
        allowed_networks=["192.0.2.0/24", "2001:db8::/32"], trusted_proxies=["10.0.0.0/8"]
    )
    assert answer(access, request(remote, X_Forwarded_For=forwarded)) == status


def test_in_log_mode_everybody_is_let_in_and_it_is_told(logged: list[Any]) -> None:
    access = control(tokens=["t"], allowed_networks=["192.0.2.0/24"], enforce=False)
    NOW[0] += 100
    assert answer(access, request("198.51.100.1")) == 200
    assert {line["event"] for line in logged} == {"access_would_be_refused"}
    assert {line["reason"] for line in logged} == {"network", "credentials"}


def test_refusals_cannot_fill_the_log_and_never_show_what_was_presented(
    logged: list[Any],
) -> None:
    access = control(tokens=["correct"])
    NOW[0] += 100
    for _ in range(1000):
        assert answer(access, request(Authorization="Bearer guessed-secret")) == 401
    assert len(logged) == 1
    NOW[0] += 100
    answer(access, request(Authorization="Bearer guessed-secret"))
    assert logged[1]["count"] == 1000
    assert "secret" not in str(logged)
    assert "correct" not in repr(vars(access))


def test_what_a_caller_writes_is_neither_read_nor_remembered() -> None:
    access = control(allowed_networks=["198.51.100.0/24"], trusted_proxies=["10.0.0.0/8"])
    for number in range(50):
        forged = request("192.0.2.7", X_Forwarded_For=f"198.51.100.{number}")
        assert answer(access, forged) == 403
    assert access._is_peer_allowed.cache_info().currsize == 1


def test_of_a_proxy_only_the_last_hops_are_read() -> None:
    access = control(allowed_networks=["198.51.100.0/24"], trusted_proxies=["10.0.0.0/8"])
    real = "198.51.100.1, 10.0.0.2"
    long = ",".join(["203.0.113.9"] * 100_000) + f",{real}"
    assert answer(access, request("10.0.0.1", X_Forwarded_For=long)) == 200
    proxies = ",".join(["198.51.100.1", *["10.0.0.2"] * 1000])
    assert answer(access, request("10.0.0.1", X_Forwarded_For=proxies)) == 403
    assert answer(access, request("10.0.0.1")) == 403


def test_who_comes_over_a_unix_socket_is_a_proxy() -> None:
    access = control(allowed_networks=["198.51.100.0/24"])
    assert answer(access, request("", X_Forwarded_For="198.51.100.1")) == 200
    assert answer(access, request("", X_Forwarded_For="203.0.113.9")) == 403
    assert answer(access, request("")) == 403
