"""What a user of Redis must be allowed, and what is told when it is not. Meant for every server."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis

from bridge.store import rights
from bridge.store.embedded import EmbeddedServer
from support import every_outcome
from support.ports import free_port
from support.programs import Program, Programs
from support.waiting import wait_until_sync

ROOT = Path(__file__).parents[2]
KEYS = ("~nbcmd:*", "~{nbcmd:*")
NAMES = {
    "reads and writes": ("+@all", "-@dangerous"),
    "no CLIENT": ("+@all", "-client"),
    "no INFO": ("+@all", "-info"),
    "no SCRIPT": ("+@all", "-script"),
    "no EVALSHA": ("+@all", "-evalsha"),
}


def proposed() -> tuple[str, ...]:
    """Of the user line in deploy/redis.conf, what comes behind the password."""
    line = re.search(
        r"^# user nb-bridge on >\S+ (.*)$", (ROOT / "deploy/redis.conf").read_text(), re.M
    )
    assert line is not None
    return tuple(line[1].split())


def least(commands: Sequence[str]) -> tuple[str, ...]:
    """As docs/high-availability.md has it."""
    return ("+eval", "+evalsha", *(f"+{each.lower()}" for each in commands))


class Stand:
    """An ingress and a worker of one user at one server."""

    def __init__(self, server: EmbeddedServer, programs: Programs) -> None:
        self.client = redis.Redis(port=server.port or 0, protocol=2)
        self.programs = programs
        self.port, self.ingress_admin, self.worker_admin = (free_port() for _ in range(3))
        self.url = f"redis://nb:pw@127.0.0.1:{server.port}/0"

    def user(self, *rules: str, name: str = "nb") -> str:
        """Makes it; its URL."""
        self.client.execute_command(
            "ACL", "SETUSER", name, "reset", "on", ">pw", "resetchannels", *rules
        )
        return self.url.replace("nb:pw", f"{name}:pw")

    def environ(self, url: str, admin_port: int) -> dict[str, str]:
        return {
            "NB_BRIDGE_REDIS_URL": url,
            "NB_BRIDGE_SPOOL_DIR": str(self.programs.folder / "spool"),
            "NB_BRIDGE_HOST": "127.0.0.1",
            "NB_BRIDGE_PORT": str(self.port),
            "NB_BRIDGE_ADMIN_PORT": str(admin_port),
            "NB_BRIDGE_PARTITIONS": "2",
            "NB_BRIDGE_LOG_FORMAT": "json",
        }

    def start(self, ingress_url: str, worker_url: str) -> tuple[Program, Program]:
        ingress = self.programs.start(
            "serve", environ=self.environ(ingress_url, self.ingress_admin)
        )
        worker = self.programs.start(
            "worker", "--receiver", every_outcome.RECEIVER,
            environ=self.environ(worker_url, self.worker_admin),
        )  # fmt: skip
        return ingress, worker

    def send(self, count: int = 15) -> None:
        url = f"http://127.0.0.1:{self.port}"
        sent = self.programs.run("send", "--url", url, "--count", str(count), "--devices", "5")
        assert sent.process.returncode == 0, sent.errors

    def wait_until_done(self, dead: int) -> None:
        """All was handled or rejected, and trimmed."""

        def is_done() -> bool:
            letters = sum(self.client.xlen(f"{{nbcmd:{p:02d}}}:dead:default") for p in range(2))
            left = sum(self.client.xlen(f"{{nbcmd:{p:02d}}}:stream") for p in range(2))
            return letters == dead and left == 0

        wait_until_sync(is_done, "everything to be handled, rejected and trimmed")

    def readiness(self, port: int) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""


@pytest.fixture
def stand(own_server: EmbeddedServer, programs: Programs) -> Iterator[Stand]:
    made = Stand(own_server, programs)
    yield made
    made.client.close()


@pytest.mark.real
def test_the_user_line_of_the_deployment_is_enough_and_nothing_is_refused(stand: Stand) -> None:
    url = stand.user(*proposed())
    ingress, worker = stand.start(url, url)
    stand.send()
    stand.wait_until_done(dead=5)
    assert (worker.stop(), ingress.stop()) == (0, 0)
    assert stand.client.acl_log() == []


@pytest.mark.real
def test_the_least_rights_that_are_documented_are_enough_for_each_program(stand: Stand) -> None:
    ingress_url = stand.user(*KEYS, *least(rights.INGRESS), name="ingress")
    worker_url = stand.user(*KEYS, *least(rights.WORKER), name="worker")
    ingress, worker = stand.start(ingress_url, worker_url)
    stand.send()
    stand.wait_until_done(dead=5)
    for port in (stand.ingress_admin, stand.worker_admin):
        assert stand.readiness(port)[0] == 200
    assert (worker.stop(), ingress.stop()) == (0, 0)
    for program in (ingress, worker):
        assert "redis_lost" not in program.errors


@pytest.mark.real
@pytest.mark.parametrize("rules", NAMES.values(), ids=NAMES)
def test_what_is_only_convenient_may_be_refused(stand: Stand, rules: tuple[str, ...]) -> None:
    url = stand.user("~*", "&*", *rules)
    ingress, worker = stand.start(url, url)
    stand.send()
    stand.wait_until_done(dead=5)
    status = stand.programs.run("status", environ=stand.environ(url, 0))
    assert status.process.returncode == 0, status.errors
    check = stand.programs.run("check", "--role", "ingress", environ=stand.environ(url, 0))
    assert check.process.returncode in (0, 1), check.errors
    assert (worker.stop(), ingress.stop()) == (0, 0)
    for program in (ingress, worker):
        assert "redis_lost" not in program.errors


@pytest.mark.real
def test_without_scripts_both_halves_say_so_once_and_go_on_when_they_are_allowed(
    stand: Stand,
) -> None:
    url = stand.user("~*", "&*", "+@all", "-@scripting")
    ingress, worker = stand.start(url, url)
    stand.send()
    for port in (stand.ingress_admin, stand.worker_admin):
        wait_until_sync(
            lambda port=port: (
                stand.readiness(port)[0] == 503  # type: ignore[misc]
                and "+eval is missing" in stand.readiness(port)[1]
            ),
            "it to be unready for that reason",
        )
    check = stand.programs.run("check", environ=stand.environ(url, 0))
    assert check.process.returncode == 1
    assert "+eval" in check.output
    stand.user("~*", "&*", "+@all")
    stand.wait_until_done(dead=5)
    for port in (stand.ingress_admin, stand.worker_admin):
        wait_until_sync(lambda port=port: stand.readiness(port)[0] == 200, "it to be ready")  # type: ignore[misc]
    assert (worker.stop(), ingress.stop()) == (0, 0)
    for program in (ingress, worker):
        assert program.errors.count("redis_lost") == program.errors.count("redis_back") <= 2


@pytest.mark.real
@pytest.mark.parametrize("missing", ["xadd", "rpush", "xreadgroup", "pexpire"])
def test_a_right_that_is_missing_is_named(stand: Stand, missing: str) -> None:
    url = stand.user("~*", "&*", "+@all", f"-{missing}")
    check = stand.programs.run("check", environ=stand.environ(url, 0))
    assert check.process.returncode == 1
    assert f"+{missing}" in check.output.replace("\n", "")
    worker = stand.programs.start(
        "worker", "--receiver", every_outcome.RECEIVER,
        environ=stand.environ(url, stand.worker_admin),
    )  # fmt: skip
    wait_until_sync(
        lambda: (
            f"+{missing}" in stand.readiness(stand.worker_admin)[1]
            or worker.process.poll() is not None
        ),
        "the worker to be unready for that reason",
    )
    assert stand.readiness(stand.worker_admin)[0] in (0, 503)
    assert missing in worker.errors


@pytest.mark.real
def test_a_server_whose_evalsha_was_renamed_is_given_the_text(
    tmp_path: Path, programs: Programs
) -> None:
    server = EmbeddedServer(
        tmp_path / "renamed", appendfsync=None, extra_args=("--rename-command", "EVALSHA", "")
    )
    server.start()
    try:
        stand = Stand(server, programs)
        ingress, worker = stand.start(server.url, server.url)
        stand.send()
        stand.wait_until_done(dead=5)
        assert (worker.stop(), ingress.stop()) == (0, 0)
        stand.client.close()
    finally:
        server.stop()


@pytest.mark.real
def test_a_worker_that_redis_has_no_room_for_is_unready_and_says_why(stand: Stand) -> None:
    url = stand.user("~*", "&*", "+@all")
    _, worker = stand.start(url, url)
    wait_until_sync(lambda: stand.readiness(stand.worker_admin)[0] == 200, "it to be ready")
    stand.client.config_set("maxclients", 1)
    stand.client.client_kill_filter(_type="normal", skipme=True)
    wait_until_sync(
        lambda: "max number of clients" in stand.readiness(stand.worker_admin)[1],
        "it to be unready for that reason",
    )
    assert stand.readiness(stand.worker_admin)[0] == 503
    stand.client.config_set("maxclients", 100)
    wait_until_sync(lambda: stand.readiness(stand.worker_admin)[0] == 200, "it to be ready again")
    assert worker.stop() == 0


@pytest.mark.real
def test_the_programs_meet_redis_at_a_unix_socket(tmp_path: Path, programs: Programs) -> None:
    server = EmbeddedServer(
        tmp_path / "unix", appendfsync=None, extra_args=("--unixsocket", f"{tmp_path}/r.sock")
    )
    server.start()
    try:
        stand = Stand(server, programs)
        ingress, worker = stand.start(f"unix://{tmp_path}/r.sock", f"unix://{tmp_path}/r.sock?db=0")
        stand.send()
        stand.wait_until_done(dead=5)
        assert (worker.stop(), ingress.stop()) == (0, 0)
        stand.client.close()
    finally:
        server.stop()
