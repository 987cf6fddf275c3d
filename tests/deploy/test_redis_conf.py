"""redis.conf, read by the real server."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
import yaml

from bridge.store.embedded import die_with_parent, find_program
from support import every_outcome
from support.deploy_tools import DEPLOY
from support.ports import free_port
from support.programs import Programs
from support.waiting import wait_for_server, wait_until_sync

CONF = DEPLOY / "redis.conf"
_UNITS = {"mb": 2**20, "gb": 2**30}


def directives() -> dict[str, str]:
    lines = [line for line in CONF.read_text().splitlines() if line and not line.startswith("#")]
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


@contextmanager
def server(
    folder: Path, *arguments: str, conf: Path = CONF, user: str = "default"
) -> Iterator[redis.Redis]:
    """The real server with the file, on a loopback port; `arguments` come last and win."""
    port = free_port()
    own = ("--port", str(port), "--dir", str(folder), "--daemonize", "no")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [find_program(), conf, *arguments, *own],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent(),
        )
    client = redis.Redis(port=port, username=user, password="")
    try:
        wait_for_server(process, client, (folder / "log").read_text)
        yield client
    finally:
        client.close()
        process.kill()
        process.wait()


def in_bytes(value: str) -> str:
    found = re.fullmatch(r"(\d+)(mb|gb)", value)
    return str(int(found[1]) * _UNITS[found[2]]) if found else value


@pytest.mark.real
def test_the_server_takes_every_line(tmp_path: Path) -> None:
    with server(tmp_path) as client:
        for key, value in directives().items():
            if key == "port":
                continue
            (told,) = client.config_get(key).values()
            assert told == in_bytes(value).strip('"'), key


@pytest.mark.real
def test_the_server_takes_what_compose_adds(tmp_path: Path) -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    command = compose["services"]["redis"]["command"]
    assert command[:2] == ["valkey-server", "/etc/valkey/redis.conf"]
    added = dict(zip(command[2::2], command[3::2], strict=True))
    assert added.pop("--bind") == "*"  # a test must not listen to the world
    with server(tmp_path, *(each for pair in added.items() for each in pair)) as client:
        assert client.config_get("protected-mode") == {"protected-mode": "no"}
        assert client.config_get("appendfsync") == {"appendfsync": "always"}


@pytest.mark.real
def test_the_user_it_proposes_may_do_what_the_programs_do_and_nothing_else(
    tmp_path: Path, programs: Programs
) -> None:
    conf = tmp_path / "redis.conf"
    proposed = re.sub(r"^# user ", "user ", CONF.read_text(), flags=re.MULTILINE)
    conf.write_text(f"{proposed}\nuser watcher on nopass ~* &* +@all\n")
    with server(tmp_path, conf=conf, user="watcher") as client:
        port = client.connection_pool.connection_kwargs["port"]
        environ = {
            "NB_BRIDGE_REDIS_URL": f"redis://nb-bridge:change-me@127.0.0.1:{port}/0",
            "NB_BRIDGE_SPOOL_DIR": str(tmp_path / "spool"),
            "NB_BRIDGE_HOST": "127.0.0.1",
            "NB_BRIDGE_PORT": str(free_port()),
            "NB_BRIDGE_ADMIN_PORT": "0",
        }
        ingress = programs.start("serve", environ=environ)
        worker = programs.start("worker", "--receiver", every_outcome.RECEIVER, environ=environ)
        url = f"http://127.0.0.1:{environ['NB_BRIDGE_PORT']}"
        sent = programs.run("send", "--url", url, "--count", "60", "--devices", "5")
        assert sent.process.returncode == 0, sent.errors

        def is_done() -> bool:
            streams = list(client.scan_iter("{nbcmd:*}:stream"))
            dead = sum(client.xlen(key) for key in client.scan_iter("*:dead:default"))
            return dead == 20 and not any(client.xlen(key) for key in streams)

        wait_until_sync(is_done, "everything to be handled, rejected and trimmed")
        assert (worker.stop(), ingress.stop()) == (0, 0)
        assert client.acl_log() == []
        with redis.Redis(port=port, username="nb-bridge", password="change-me") as bridge:
            for refused in ("FLUSHALL", "GET other", "KEYS *", "CONFIG SET timeout 1", "ACL LIST"):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    bridge.execute_command(*refused.split())


def test_every_line_has_its_reason_above_it() -> None:
    blocks = re.split(r"\n\s*\n", CONF.read_text())
    for block in blocks:
        lines = block.splitlines()
        if any(not line.startswith("#") for line in lines):
            assert lines[0].startswith("#"), f"no reason for {lines[0]}"


def test_nothing_that_was_answered_200_is_thrown_away() -> None:
    told = directives()
    assert told["appendonly"] == "yes"
    assert told["appendfsync"] == "always"
    assert told["maxmemory-policy"] == "noeviction"
