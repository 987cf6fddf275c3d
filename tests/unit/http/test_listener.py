"""Sockets: bound, or handed over, or an error that says what to do."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.errors import UsageError
from bridge.http import listener
from bridge.http.listener import Listener, bind, inherited


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket whose descriptor is the first that may be handed over."""
    sock = socket.socket()
    monkeypatch.setattr(listener, "_FIRST_INHERITED", sock.fileno())
    monkeypatch.setenv("LISTEN_FDS", "1")
    yield sock
    sock.detach()


def test_a_listening_socket_is_taken_over_and_its_variables_go(handed_over: socket.socket) -> None:
    handed_over.bind(("127.0.0.1", 0))
    handed_over.listen()
    os.environ["LISTEN_FDNAMES"] = "callbacks"
    [taken] = inherited()
    assert taken.getsockname() == handed_over.getsockname()
    assert not any(name.startswith("LISTEN_") for name in os.environ)
    assert not os.get_inheritable(taken.fileno())
    taken.close()


# It is not closed: the program ends by this.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_socket_that_does_not_listen_is_refused(handed_over: socket.socket) -> None:
    handed_over.bind(("127.0.0.1", 0))
    with pytest.raises(UsageError, match="does not listen"):
        inherited()


@pytest.mark.parametrize("count", ["many", "1"])
def test_what_names_no_sockets_is_told(monkeypatch: pytest.MonkeyPatch, count: str) -> None:
    with open(os.devnull) as file:
        monkeypatch.setattr(listener, "_FIRST_INHERITED", os.dup(file.fileno()))
    monkeypatch.setenv("LISTEN_FDS", count)
    with pytest.raises(UsageError, match=f"LISTEN_FDS={count}"):
        inherited()
    os.close(listener._FIRST_INHERITED)


def test_what_was_meant_for_another_process_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert inherited() == []


has_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")


def reaches(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("hosts", "reached"),
    [
        ("127.0.0.1, 127.0.0.2", ["127.0.0.1", "127.0.0.2"]),
        pytest.param("127.0.0.1,::1", ["127.0.0.1", "::1"], marks=has_ipv6),
        pytest.param("::", ["127.0.0.1", "::1"], marks=has_ipv6),
        pytest.param("0.0.0.0,::", ["127.0.0.1", "127.0.0.2", "::1"], marks=has_ipv6),
        pytest.param("::1", ["::1"], marks=has_ipv6),
        pytest.param("127.0.0.1,::,::1", ["127.0.0.1", "127.0.0.2", "::1"], marks=has_ipv6),
        ("127.0.0.1,localhost,127.0.0.1", ["127.0.0.1"]),
        ("0.0.0.0,127.0.0.1", ["127.0.0.1", "127.0.0.2"]),
    ],
)
def test_several_addresses_have_one_port(hosts: str, reached: list[str]) -> None:
    sockets = bind(hosts, 0, setting="NB_BRIDGE_PORT")
    (port,) = {sock.getsockname()[1] for sock in sockets}
    tried = ["127.0.0.1", "127.0.0.2", "::1"] if "::" in hosts else reached
    found = [host for host in tried if reaches(host, port)]
    for sock in sockets:
        sock.close()
    assert set(reached) <= set(found)
    assert hosts != "::1" or found == ["::1"]


@pytest.mark.parametrize("hosts", ["127.0.0.1,", ",,", "127.0.0.1,,::1"])
def test_an_empty_address_among_others_is_refused(hosts: str) -> None:
    with pytest.raises(UsageError, match=r"empty address.*NB_BRIDGE_HOST"):
        bind(hosts, 0, setting="NB_BRIDGE_PORT")


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_where_one_of_several_cannot_be_had_none_is_kept() -> None:
    (sock,) = bind("127.0.0.2", 0, setting="NB_BRIDGE_PORT")
    port = sock.getsockname()[1]
    with pytest.raises(UsageError, match=f"port {port} on 127.0.0.2 is taken"):
        bind("127.0.0.1,127.0.0.2", port, setting="NB_BRIDGE_PORT")
    (again,) = bind("127.0.0.1", port, setting="NB_BRIDGE_PORT")
    for each in (sock, again):
        each.close()


def test_a_port_that_is_taken_is_told() -> None:
    [sock] = bind("127.0.0.1", 0, setting="NB_BRIDGE_PORT")
    port = sock.getsockname()[1]
    with pytest.raises(UsageError, match=f"port {port} on 127.0.0.1 is taken.*NB_BRIDGE_PORT"):
        bind("127.0.0.1", port, setting="NB_BRIDGE_PORT")
    sock.close()


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "set NB_BRIDGE_PORT above 1023"),
        (errno.EADDRNOTAVAIL, "cannot listen on 127.0.0.1 port 80 .*: set NB_BRIDGE_HOST"),
    ],
)
def test_why_it_cannot_listen_is_told_and_nothing_stays_open(
    monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def refuse(self: socket.socket, backlog: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "bind", lambda *_: None)
    monkeypatch.setattr(socket.socket, "listen", refuse)
    with pytest.raises(UsageError, match=advice):  # an open socket would warn
        bind("127.0.0.1", 80, setting="NB_BRIDGE_PORT")


def test_an_ipv6_address_is_written_as_urls_want_it() -> None:
    class Bound:
        def getsockname(self) -> tuple[str, int, int, int]:
            return ("2001:db8::1", 8080, 0, 0)

    assert Listener(lambda: None, [Bound()]).address == "[2001:db8::1]:8080"  # type: ignore[arg-type,list-item]


def resolves_to(monkeypatch: pytest.MonkeyPatch, *found: tuple[int, tuple[str, int]]) -> None:
    infos = [(family, socket.SOCK_STREAM, 6, "", address) for family, address in found]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)


def test_an_address_that_a_name_has_twice_is_bound_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves_to(monkeypatch, *[(socket.AF_INET, ("127.0.0.1", 0))] * 2)
    (sock,) = bind("localhost", 0, setting="NB_BRIDGE_PORT")
    sock.close()


def test_an_address_that_this_machine_has_not_is_done_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolves_to(monkeypatch, (socket.AF_INET, ("192.0.2.1", 0)), (socket.AF_INET, ("127.0.0.1", 0)))
    (sock,) = bind("localhost", 0, setting="NB_BRIDGE_PORT")
    assert sock.getsockname()[0] == "127.0.0.1"
    sock.close()
    resolves_to(monkeypatch, (socket.AF_INET, ("192.0.2.1", 0)))
    with pytest.raises(UsageError, match="cannot listen on elsewhere port 0"):
        bind("elsewhere", 0, setting="NB_BRIDGE_PORT")


@pytest.mark.parametrize("host", ["..", "a" * 70 + ".example", "\ud800"])
def test_what_is_not_a_name_at_all_is_told(host: str) -> None:
    with pytest.raises(UsageError, match="is not an address: set NB_BRIDGE_HOST"):
        bind(host, 0, setting="NB_BRIDGE_PORT")


async def test_a_unix_socket_is_called_what_it_is(tmp_path: Path) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "callbacks"))
    listening = Listener(asyncio.Protocol, [sock])
    assert listening.address == f"unix:{tmp_path / 'callbacks'}"
    listening.close()
