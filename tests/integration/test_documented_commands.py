"""Every command that the documentation shows is run, in the words of the documentation."""

from __future__ import annotations

import io
import re
import subprocess

import pytest

from bridge.store.embedded import EmbeddedServer
from support import documented, servers
from support.operating import PARTITIONS, System
from support.ports import free_port
from support.processes import environ_for
from support.programs import Programs
from support.waiting import wait_until_sync

pytestmark = pytest.mark.real

STAYS = ("serve", "worker", "dev", "console")
SHOWN = documented.commands()
TO_AN_END = [it for it in SHOWN if it.split()[0] not in STAYS or "--help" in it]
PROGRAMS = [it for it in SHOWN if it not in TO_AN_END]
JUNK = b'{"deviceId": "junk", "result": {"resultCode": "SENT"}}'
FEW = ("--count", "100")
READY = re.compile("ingress_listening|worker_ready|worker_started|Ctrl-C ends it")
RECEIVER = """
class Receiver:
    def handleNBCommandStateChanged(self):
        pass

PushMessageReceiver = Receiver
"""
# Here they rightly find a problem (1): the tests' server keeps nothing on disk, nothing listens on
# the default admin ports, and what is in quarantine is still no notification.
FINDS_A_PROBLEM = {
    "check", "ping", "ping --url http://127.0.0.1:8090", "quarantine replay --all"
}  # fmt: skip


@pytest.fixture
def system(system: System, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> System:
    """Its commands run where their files are."""
    monkeypatch.chdir(programs.folder)
    return system


class Terminal(io.StringIO):
    """The reader, who answers."""

    def isatty(self) -> bool:
        return True


def given(system: System, number: int) -> dict[str, str]:
    """Something for a command to act on: a new dead letter and a new quarantined body."""
    command = f"command-{number}"
    system.send("device", {"do": "reject"}, command=command)
    assert system.post(JUNK)[0] == 200

    def dead() -> str | None:
        letters = system.json("dead", "list")["dead"]
        return next((letter["id"] for letter in letters if letter["command"] == command), None)

    return {
        "dead": wait_until_sync(dead, "the dead letter"),
        "quarantined": system.json("quarantine", "list")["quarantine"][-1]["id"],
        "command": command,
        "device": "device",
    }


@pytest.mark.timeout(300)
def test_every_command_that_is_shown_does_something(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingress = system.start_ingress()
    system.start_worker(max_attempts=1)
    system.unhandled_is(0)
    monkeypatch.setenv("NB_BRIDGE_PARTITIONS", str(PARTITIONS))
    mended = system.folder / "body.json"
    (system.folder / "exported.jsonl").write_text("")
    for number, command in enumerate(TO_AN_END):
        values = given(system, number) | {"url": ingress.url}
        mended.write_bytes(JUNK.replace(b"{", b'{"commandId": "mended", ', 1))
        if command.startswith(("groups retire", "groups protect")):
            system.client.sadd(f"{system.namespace}:groups", "mygroup")
        words = documented.filled_in(command, **values)
        if words[0] == "send":
            words += [*FEW, "--url", ingress.url]
        if words[:2] == ["quarantine", "show"] and "--out" in words:
            mended.unlink()  # it does not overwrite
        monkeypatch.setattr("sys.stdin", Terminal("y\n"))
        said = system.nb(*words)
        allowed = (0, 1) if command in FINDS_A_PROBLEM else (0,)
        assert said.code in allowed, (command, said)
        assert said.out or said.err or "--out" in words, command


@pytest.mark.parametrize("command", PROGRAMS)
def test_every_program_that_is_shown_starts_and_ends(
    command: str, real_server: EmbeddedServer, programs: Programs
) -> None:
    for name in ("receiver.py", "shop.py", "PushMessageReceiver.py"):
        (programs.folder / name).write_text(RECEIVER)
    redis = servers.real_redis(real_server)
    environ = environ_for(
        programs.folder, real_server.url, redis.namespace, receiver="shop.py:Receiver"
    )
    environ |= {"NB_BRIDGE_HOST": "127.0.0.1", "NB_BRIDGE_PORT": "0", "NB_BRIDGE_ADMIN_PORT": "0"}
    environ["NB_BRIDGE_CONSOLE_PORT"] = str(free_port())
    words = command.split()
    if words[0] == "dev":
        words += ["--port", str(free_port())]
    program = programs.start(*words, environ=environ)
    wait_until_sync(lambda: READY.search(program.output + program.errors), f"{command} to be ready")
    assert program.stop() == 0


@pytest.mark.parametrize("words", documented.targets())
def test_every_target_that_is_shown_exists(words: str) -> None:
    made = subprocess.run(
        f"make --dry-run {words}", shell=True, cwd=documented.ROOT, capture_output=True, check=False
    )
    assert made.returncode == 0, made.stderr
