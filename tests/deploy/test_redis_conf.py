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

from bridge.embedded import die_with_parent, find_program, free_port
from deploy_tools import DEPLOY
from waiting import wait_until_sync

CONF = DEPLOY / "redis.conf"
_UNITS = {"mb": 2**20, "gb": 2**30}


def directives() -> dict[str, str]:
    lines = [line for line in CONF.read_text().splitlines() if line and not line.startswith("#")]
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


@contextmanager
def server(folder: Path, *arguments: str) -> Iterator[redis.Redis]:
    """The real server with the file, on a loopback port; `arguments` come last and win."""
    port = free_port()
    own = ("--port", str(port), "--dir", str(folder), "--daemonize", "no")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [find_program(), CONF, *arguments, *own],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent(),
        )
    client = redis.Redis(port=port)

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    try:
        wait_until_sync(answers, "the server to answer")
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
