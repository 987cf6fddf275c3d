"""Sockets: bound, or handed over, or an error that says what to do."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from bridge import listener
from bridge.errors import UsageError
from bridge.listener import Listener, bind, inherited


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
