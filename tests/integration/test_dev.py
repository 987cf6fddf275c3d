"""`nb-bridge dev` as a newcomer meets it: one command, a line to paste, and nothing left behind."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shlex
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bridge.platform import recognition
from support.ports import free_port
from support.programs import Program, Programs, descendants, is_alive
from support.waiting import wait_until_sync

pytestmark = pytest.mark.real

FILES = ("cases.json", "cases-v5.json", "cases-aep.json")
CASES = [
    case
    for name in FILES
    for case in json.loads((Path(__file__).parents[1] / "data" / name).read_text())
]
PUBLISHED = [case for case in CASES if case["expect"]["outcome"] == "published"]
READY = "Ctrl-C ends it"
needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture(autouse=True)
def _any_admin_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual ones are for one dev on a machine; tests run side by side."""
    monkeypatch.setenv("NB_BRIDGE_ADMIN_PORT", "0")


def start(
    programs: Programs, *arguments: str, port: int | None = None, name: str = "dev"
) -> Program:
    dev = programs.start("dev", *arguments, "--port", str(port or free_port()), name=name)
    dev.prints(READY)
    return dev


def post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=15)
    try:
        connection.request("POST", parts.path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def pasted(dev: Program) -> tuple[str, str, dict[str, str]]:
    """URL, body and headers of the last `curl` line with headers that dev printed."""
    line = re.findall(r"^ +(curl .*-H .*)$", dev.output, re.MULTILINE)[-1]
    command, flag, header, data, body, url = shlex.split(line)
    assert (command, flag, data) == ("curl", "-H", "-d")
    name, value = header.split(": ")
    return url, body, {name: value}


def url_of(dev: Program) -> str:
    return pasted(dev)[0]


def paste(dev: Program) -> tuple[int, str]:
    url, body, headers = pasted(dev)
    return post(url, body.encode(), headers)


def test_the_printed_line_is_answered_ok_and_the_notification_shown(programs: Programs) -> None:
    dev = start(programs)
    others = re.findall(r"^ +curl -d '([^']*)' (\S+)$", dev.output, re.MULTILINE)
    assert len(others) == 2
    for body, url in others:
        assert post(url, body.encode(), {}) == (200, "ok")
        command = recognition.accept(body.encode()).command
        wait_until_sync(lambda command=command: f"command {command}" in dev.output)
    assert paste(dev) == (200, "ok")
    command = json.loads(pasted(dev)[1])["commandId"]
    dev.prints(f"command {command} is DELIVERED")
    dev.prints(f"device device-1 command {command}")  # the line of the delivery, with its outcome

    dev.signal(signal.SIGINT)
    assert dev.ends() == 0
    assert dev.errors == ""


def test_every_documented_and_seen_callback_reaches_the_receiver(programs: Programs) -> None:
    """Once each: some cases say the same of the same command, and so are duplicates."""
    (programs.folder / "receiver.py").write_text(
        "import json\n"
        "from consumers import PushMessageReceiver, delivery, request\n"
        "class Receiver(PushMessageReceiver):\n"
        "    async def handleNBCommandStateChanged(self):\n"
        "        print('GOT', delivery.notification_id, json.dumps(request.json), flush=True)\n"
        "    handleDeviceDatasChanged = handleOtherNotification = handleNBCommandStateChanged\n"
    )
    dev = start(programs, "receiver.py:Receiver")
    url = pasted(dev)[0]
    expected: dict[str, Any] = {}
    for case in PUBLISHED:
        body = case_body(case)
        assert post(url, body, case.get("headers", {})) == (200, "ok"), case["name"]
        document = case["expect"].get("legacy") or json.loads(body.decode("utf-8-sig"))
        expected.setdefault(recognition.accept(body).id, document)

    def received() -> list[tuple[str, Any]]:
        lines = re.findall(r"^GOT (\w+) (.*)$", dev.output, re.MULTILINE)
        return [(notification_id, json.loads(text)) for notification_id, text in lines]

    wait_until_sync(lambda: len(received()) >= len(expected), "every case to be handled")
    assert len(expected) > len(PUBLISHED) / 2
    assert sorted(received()) == sorted(expected.items())


def case_body(case: dict[str, Any]) -> bytes:
    if case.get("body_base64") is not None:
        return base64.b64decode(case["body_base64"])
    body: str = case["body"]
    return body.encode()


def test_what_it_knew_survives_a_restart(programs: Programs) -> None:
    first = start(programs, name="first")
    url, body, headers = pasted(first)
    command = json.loads(body)["commandId"]
    assert paste(first) == (200, "ok")
    first.prints(f"command {command}")
    assert first.stop() == 0

    second = start(programs, name="second")
    url = pasted(second)[0]
    assert post(url, body.encode(), headers) == (200, "ok")
    assert paste(second) == (200, "ok")
    second.prints(f"command {json.loads(pasted(second)[1])['commandId']}")
    assert f"command {command}" not in second.output  # same device, in order: it was a duplicate


@needs_proc
def test_a_killed_dev_leaves_nothing_running_and_no_damage(programs: Programs) -> None:
    first = start(programs, name="first")
    below = descendants(first.process.pid)
    assert len(below) >= 4  # the server, the ingress, the worker's parent and child
    first.signal(signal.SIGKILL)
    first.ends()
    wait_until_sync(lambda: not any(map(is_alive, below)), "all of its children to end")

    second = start(programs, name="second")
    assert paste(second) == (200, "ok")
    second.prints("is DELIVERED")


@needs_proc
@pytest.mark.parametrize("victim", ["serve", "worker", "valkey-server"])
def test_when_a_part_dies_it_says_so_and_ends(programs: Programs, victim: str) -> None:
    dev = start(programs)
    below = descendants(dev.process.pid)
    (pid,) = [pid for pid in below if victim in words(pid)]
    os.kill(pid, signal.SIGKILL)
    assert dev.ends() == (3 if victim == "valkey-server" else 1)
    assert "so dev ends too" in dev.errors.splitlines()[-1]
    wait_until_sync(lambda: not any(map(is_alive, below)), "the other parts to end")


def words(pid: int) -> list[str]:
    """The last part of each word of a process's command line."""
    line = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    return [Path(word).name for word in re.split(r"[\0 ]", line)]  # servers write theirs anew


def test_a_taken_port_is_one_line_and_exit_2(programs: Programs) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        dev = programs.run("dev", "--port", str(port))
    assert dev.process.returncode == 2
    assert dev.errors.startswith(f"nb-bridge: port {port} is taken")
    assert "choose another with --port" in dev.errors
    assert dev.errors.count("\n") == 1


@pytest.mark.parametrize(
    ("receiver", "told"),
    [
        ("absent.py:Receiver", "absent.py"),
        ("no_such_module:Receiver", "no_such_module"),
        ("json:JSONDecoder", "JSONDecoder"),
    ],
)
def test_a_receiver_that_cannot_work_is_named_and_exit_2(
    programs: Programs, receiver: str, told: str
) -> None:
    dev = programs.run("dev", receiver, "--port", str(free_port()))
    assert dev.process.returncode == 2
    assert told in dev.errors
    assert "Traceback" not in dev.errors


def test_a_changed_receiver_runs_again(programs: Programs) -> None:
    receiver = programs.folder / "mine.py"
    text = (
        "from consumers import PushMessageReceiver\n"
        "class Receiver(PushMessageReceiver):\n"
        "    def setup(self):\n"
        "        print('version {}', flush=True)\n"
        "    def handleNBCommandStateChanged(self):\n"
        "        pass\n"
    )
    receiver.write_text(text.format(1))
    dev = start(programs, "mine.py:Receiver", "--reload")
    dev.prints("version 1")
    receiver.write_text("this is no Python")
    dev.prints("the new code cannot be used: the worker goes on with the old")
    assert "mine.py cannot be run: SyntaxError" in dev.errors
    receiver.write_text(text.format(2))
    dev.prints("version 2")
    dev.prints("the worker has the new code")
    assert paste(dev) == (200, "ok")
    assert dev.stop() == 0


def test_what_a_handler_raises_is_shown_with_its_place(programs: Programs) -> None:
    (programs.folder / "mine.py").write_text(
        "from consumers import PushMessageReceiver, Reject, request\n"
        "class Receiver(PushMessageReceiver):\n"
        "    def handleNBCommandStateChanged(self):\n"
        "        if request.json['result']['resultCode'] == 'SENT':\n"
        "            raise Reject('no such\\ndevice')\n"
        "        request.json['absent']\n"
    )
    dev = start(programs, "mine.py:Receiver")
    assert programs.run("send", "--url", url_of(dev)).process.returncode == 0
    dev.prints(" ms) Reject: no such device (mine.py:5)")
    dev.prints(" ms) KeyError: 'absent' (mine.py:6)")


def test_the_printed_commands_look_at_what_was_sent(programs: Programs) -> None:
    dev = start(programs)
    send, status = re.findall(r"^  \S.* ((?:send|status) --.*)$", dev.output, re.MULTILINE)
    assert programs.run(*shlex.split(send)).process.returncode == 0
    dev.prints("is SUCCESSFUL")
    shown = programs.run(*shlex.split(status))
    assert shown.process.returncode == 0, shown.errors
    assert re.search(r"^ *default +0 ", shown.output, re.MULTILINE)


def test_folders_of_the_same_names_are_not_taken_for_the_package(programs: Programs) -> None:
    for name in ("bridge", "consumers", "redis"):
        (programs.folder / name).mkdir()
        (programs.folder / name / "__init__.py").write_text("raise RuntimeError('shadowed')")
    dev = start(programs)
    assert paste(dev) == (200, "ok")
    dev.prints("is DELIVERED")


def test_with_tls_its_own_certificate_is_what_a_client_trusts(programs: Programs) -> None:
    dev = start(programs, "--tls")
    line = re.findall(r"^ +(curl .*)$", dev.output, re.MULTILINE)[-1]
    ca = re.search(r"--cacert (\S+)", line)
    assert ca is not None
    assert "https://localhost:" in line
    key = programs.folder / ".data" / "tls" / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600

    (send_line,) = re.findall(r"^ +\S.* (send --url https.*)$", dev.output, re.MULTILINE)
    send = programs.run(*shlex.split(send_line), "--json")
    assert send.process.returncode == 0, send.errors
    assert json.loads(send.output)["answers"] == {"200": 3}
    dev.prints("is SUCCESSFUL")

    stranger = programs.run(*shlex.split(send_line.partition(" --ca")[0]), "--give-up-s", "0")
    assert stranger.process.returncode == 1
    assert "certificate not trusted" in stranger.errors


def test_two_on_the_same_data_are_refused(programs: Programs) -> None:
    start(programs, name="first")
    second = programs.run("dev", "--port", str(free_port()))
    assert second.process.returncode == 2
    assert "another server uses" in second.errors
    assert second.errors.count("\n") == 1


def test_the_status_line_that_is_proposed_looks_at_the_spool_in_use(
    programs: Programs, tmp_path: Path
) -> None:
    dev = start(programs, "--data", str(tmp_path / "my data"))
    (line,) = re.findall(r"^ +\S.* (status --redis-url .*)$", dev.output, re.MULTILINE)
    status = programs.run(*shlex.split(line), "--json")
    assert status.process.returncode == 0, status.errors
    assert json.loads(status.output)["spool"]["folder"] == str(tmp_path / "my data/spool")
