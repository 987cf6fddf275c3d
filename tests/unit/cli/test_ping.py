"""`nb-bridge ping`: whom it asks, and what it makes of the answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bridge import cli
from bridge.cli import ping
from bridge.operations import readiness
from bridge.operations.readiness import Answer
from support.ports import free_port

READY = b'HTTP/1.1 200 OK\r\n\r\n{"ok":true,"reasons":[]}'
NOT_READY = b'HTTP/1.1 503 No\r\n\r\n{"ok":false,"reasons":["the spool is full"]}'


@pytest.fixture(autouse=True)
def _restored_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())


@contextmanager
def listening(answer: bytes) -> Iterator[int]:
    """A port where every request gets `answer`."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(1024)
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def told(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object]]:
    code = cli.run(["ping", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_ready_program_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(READY) as port:
        assert told("--url", f"http://127.0.0.1:{port}", capsys=capsys)[0] == 0
        os.environ["NB_BRIDGE_ADMIN_PORT"] = str(port)
        os.environ["NB_BRIDGE_ADMIN_HOST"] = "0.0.0.0"  # listened at, and no address to ask
        assert told(capsys=capsys)[0] == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(NOT_READY, "the spool is full"), (b"HTTP/1.1 404 No\r\n\r\n", "not as nb-bridge does"),
     (b"", "not as nb-bridge does"), (b"220 smtp ready", "not as nb-bridge does")],
)  # fmt: skip
def test_any_other_answer_is_1_with_its_reason(
    answer: bytes, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening(answer) as port:
        assert cli.run(["ping", "--url", f"http://127.0.0.1:{port}"]) == 1
    assert reason in capsys.readouterr().err


def test_no_answer_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    code, document = told("--url", f"http://127.0.0.1:{free_port()}", capsys=capsys)
    assert (code, document["ready"]) == (1, False)
    silent = socket.create_server(("127.0.0.1", 0))  # accepts, and says nothing
    url = f"http://127.0.0.1:{silent.getsockname()[1]}"
    assert told("--url", url, "--timeout-s", "0.05", capsys=capsys)[0] == 1
    silent.close()


def test_without_a_port_both_defaults_are_asked_and_who_answers_must_be_ready(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening(READY) as ready, listening(NOT_READY) as not_ready:
        nobody = free_port()
        for ports, code in (
            ({"ingress": ready, "worker": nobody}, 0),
            ({"ingress": nobody, "worker": ready}, 0),
            ({"ingress": ready, "worker": not_ready}, 1),
            ({"ingress": nobody, "worker": nobody}, 1),
        ):
            monkeypatch.setattr(ping, "DEFAULT_PORTS", ports)
            assert told(capsys=capsys)[0] == code, ports
        monkeypatch.setattr(ping, "DEFAULT_PORTS", {"ingress": ready, "worker": not_ready})
        assert told("--role", "ingress", capsys=capsys)[0] == 0
        assert told("--role", "worker", capsys=capsys)[0] == 1


def test_of_several_processes_all_must_be_ready(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {1: True, 2: True, 3: False}

    def ask(host: str, port: int, timeout_s: float) -> Answer:
        number = port - 5000
        return Answer(
            url=f"http://{host}:{port}",
            answered=number in answers,
            ready=answers.get(number, False),
            reasons=("why",),
        )

    monkeypatch.setattr(readiness, "ask", ask)
    first = ("--url", "http://127.0.0.1:5001")
    assert told(*first, "--processes", "2", capsys=capsys)[0] == 0
    code, said = told(*first, "--processes", "3", capsys=capsys)
    assert (code, len(said["answers"])) == (1, 3)  # type: ignore[arg-type]
    del answers[3]
    assert told(*first, "--processes", "3", capsys=capsys)[0] == 1
    assert cli.run(["ping", *first, "--processes", "3"]) == 1
    assert "5003: why" in capsys.readouterr().err
    os.environ["NB_BRIDGE_PROCESSES"] = "2"
    assert told(*first, capsys=capsys)[0] == 0
    os.environ["NB_BRIDGE_PROCESSES"] = "0"
    monkeypatch.setattr(ping, "cores", lambda: 3)
    assert told(*first, capsys=capsys)[0] == 1


@pytest.mark.parametrize("url", ["127.0.0.1:8081", "https://127.0.0.1:8081", "http://127.0.0.1"])
def test_a_wrong_url_is_wrong_use(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ping", "--url", url]) == 2


def test_a_port_that_cannot_be_known_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    os.environ["NB_BRIDGE_ADMIN_PORT"] = "0"
    assert cli.run(["ping"]) == 2
    assert "--url" in capsys.readouterr().err


def test_it_knows_the_ports_of_the_programs() -> None:
    from bridge.ingress import app
    from consumers.worker.process import parent

    programs = {"ingress": app.DEFAULT_ADMIN_PORT, "worker": parent.DEFAULT_ADMIN_PORT}
    assert programs == ping.DEFAULT_PORTS


def test_it_imports_nothing_heavy() -> None:
    program = (
        "import sys; from bridge.cli import run; run(['ping', '--timeout-s', '0.1']); "
        "print(*[m for m in ('aiohttp', 'redis', 'marshmallow', 'environs', 'rich', 'asyncio')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    # Whatever answers there: `make run` may be open beside the tests.
    assert done.stdout.splitlines()[-1] == ""
