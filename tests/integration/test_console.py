"""The console as a program: it starts, serves, refuses to be open to others, and stops."""

from __future__ import annotations

import json
import socket
import sys
import urllib.error
import urllib.request
from typing import Any

import pytest

from bridge.store.embedded import EmbeddedServer
from support.operating import System
from support.programs import Program, Programs
from support.waiting import wait_until_sync

pytestmark = pytest.mark.real


def begun(
    programs: Programs, server: EmbeddedServer, *, namespace: str = "none", **environ: str
) -> tuple[Program, str]:
    """A console on any free port, and where it is."""
    names = {f"NB_BRIDGE_{name}": value for name, value in environ.items()}
    program = programs.start(
        "console", "--port", "0", "--redis-url", server.url, "--namespace", namespace, environ=names
    )
    program.prints("Ctrl-C ends it")
    return program, program.output.split()[4].rstrip(",")


def fetch(url: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def document(url: str, **headers: str) -> Any:
    status, text = fetch(url, Accept="application/json", **headers)
    assert status == 200, text
    return json.loads(text)


def test_it_serves_what_the_command_line_prints_until_it_is_stopped(
    programs: Programs, real_server: EmbeddedServer
) -> None:
    program, url = begun(programs, real_server)
    assert document(f"{url}/")["redis"]["up"] is True
    rows = document(f"{url}/settings")["settings"]
    printed = programs.run("settings", "--json").output
    assert [row["name"] for row in rows] == [row["name"] for row in json.loads(printed)["settings"]]
    assert program.stop() == 0


def test_no_secret_is_shown_or_logged(programs: Programs, real_server: EmbeddedServer) -> None:
    program, url = begun(
        programs, real_server, CONSOLE_TOKENS="hunter2", CONSOLE_BASIC_CREDENTIALS="ada:sesame1",
        LOG_LEVEL="debug",
    )  # fmt: skip
    rows = document(f"{url}/settings?token=hunter2", Authorization="Bearer hunter2")["settings"]
    hidden = {row["name"]: row["value"] for row in rows if row["name"].startswith("console_")}
    assert hidden["console_tokens"] == hidden["console_basic_credentials"] == "(1 hidden)"
    assert fetch(f"{url}/", Authorization="Bearer hunter3")[0] == 401
    assert program.stop() == 0
    for secret in ("hunter2", "hunter3", "sesame1"):
        assert secret not in program.errors + program.output


@pytest.mark.parametrize(
    "reached", [("--host", "0.0.0.0"), ("--console-names", "console.example.com")]
)
def test_it_is_not_open_to_others(programs: Programs, reached: tuple[str, str]) -> None:
    program = programs.run("console", *reached, "--port", "0")
    assert program.ends() == 2
    assert "NB_BRIDGE_CONSOLE_TOKENS" in program.errors
    assert len(program.errors.strip().splitlines()) == 1


def test_a_port_that_is_taken(programs: Programs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = programs.run("console", "--port", str(port))
    assert program.ends() == 2
    assert "NB_BRIDGE_CONSOLE_PORT" in program.errors


def test_the_extra_is_missing(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    from bridge import cli
    from bridge.cli import console

    monkeypatch.setattr(console, "_NEEDED", ("no_such_module",))
    errors: list[str] = []
    monkeypatch.setattr("click.echo", lambda text, err=False: errors.append(text))
    assert cli.run(["console"]) == 2
    assert "pip install 'nb-command-bridge[console]'" in errors[0]


def test_redis_may_be_away_at_the_start_and_come(
    programs: Programs, own_server: EmbeddedServer
) -> None:
    own_server.stop()
    _, url = begun(programs, own_server)
    assert document(f"{url}/")["redis"]["up"] is False
    own_server.start()
    wait_until_sync(lambda: document(f"{url}/")["redis"]["up"] is True, "Redis to be seen")


def test_the_wheel_has_everything_that_a_page_needs(tmp_path: Any) -> None:
    import subprocess
    import zipfile
    from pathlib import Path

    root = Path(__file__).parents[2]
    subprocess.run(
        [
            sys.executable, "-c",
            "import os, sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])",
            str(tmp_path),
        ],
        cwd=root, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("templates", "assets"):
        for file in (root / "bridge" / "console" / folder).iterdir():
            assert f"bridge/console/{folder}/{file.name}" in inside


def test_the_promise_is_shown_while_redis_is_away_and_after(
    programs: Programs, own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = System(own_server.url, "console", programs, monkeypatch)
    system.start_ingress()
    _, url = begun(programs, own_server, namespace="console")
    system.send("d1", command="c1")
    wait_until_sync(lambda: "The promise is kept" in fetch(f"{url}/")[1], "the promise")
    own_server.stop()
    wait_until_sync(lambda: document(f"{url}/")["redis"]["up"] is False, "the outage to be seen")
    system.send("d1", command="c2")
    # The ingress says itself that it spools; Redis is not asked.
    wait_until_sync(lambda: "spools to its disk (1 wait there)" in fetch(f"{url}/")[1], "its word")
    text = fetch(f"{url}/")[1]
    assert "Redis is away since" in text
    assert "Something needs a look" in text
    assert fetch(f"{url}/commands/c1")[0] == 503
    own_server.start()
    wait_until_sync(lambda: "The promise is kept" in fetch(f"{url}/")[1], "the end of the outage")
    found = wait_until_sync(
        lambda: fetch(f"{url}/commands/c2", Accept="application/json")[0] == 200, "the command"
    )
    assert found
    system.stop()
