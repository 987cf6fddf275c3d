"""The embedded server: data survives, nothing outlives its parent, errors say what to do."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from bridge.errors import RedisUnavailableError, UsageError
from bridge.store import link
from bridge.store.embedded import EmbeddedServer
from support.programs import is_alive
from support.servers import Redis
from support.waiting import wait_until_sync

pytestmark = pytest.mark.real


def value(server: EmbeddedServer, name: str) -> bytes | None:
    with redis.Redis.from_url(server.url) as client:
        return client.get(name)  # type: ignore[return-value]


def put(server: EmbeddedServer, name: str, text: str) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.set(name, text)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_data_survives_a_restart_on_the_same_port(own_server: EmbeddedServer, end: str) -> None:
    port = own_server.port
    put(own_server, "a", "1")

    getattr(own_server, end)()
    assert not own_server.is_running()
    own_server.start()

    assert own_server.port == port
    assert value(own_server, "a") == b"1"


def test_start_and_stop_may_be_called_twice(own_server: EmbeddedServer) -> None:
    process = own_server.process
    own_server.start()
    assert own_server.process is process
    own_server.stop()
    own_server.stop()


def test_it_listens_on_a_unix_socket(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "data", unix_socket=tmp_path / "s", appendfsync=None)
    server.start()
    try:
        put(server, "a", "1")
        assert value(server, "a") == b"1"
        assert server.port is None
    finally:
        server.stop()


def test_a_second_server_on_the_same_data_is_refused(
    own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.store.embedded._LOCK_PATIENCE_S", 0.0)
    with pytest.raises(UsageError, match="another server uses"):
        EmbeddedServer(own_server.data_dir).start()


def test_a_taken_port_is_named_in_the_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = EmbeddedServer(tmp_path, port=taken.getsockname()[1])
        with pytest.raises(RedisUnavailableError, match="in use"):
            server.start()
    assert not server.is_running()


def test_without_a_program_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="pip install"):
        EmbeddedServer(tmp_path).start()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prctl(2)")
def test_the_server_dies_with_a_killed_parent(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from bridge.store.embedded import EmbeddedServer\n"
        "server = EmbeddedServer(pathlib.Path(sys.argv[1])); server.start()\n"
        "print(server.process.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout is not None
        server_pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    wait_until_sync(lambda: not is_alive(server_pid), "the server to die")


async def test_a_link_works_on_fake_and_real_alike(server: Redis) -> None:
    connection = server.link()
    key = server.keys.meta
    set_, get = link.command("SET", key, b"\xff"), link.command("GET", key)
    assert await connection.run((set_, get), timeout_s=5) == [b"OK", b"\xff"]
    await connection.close()
