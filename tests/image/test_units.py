"""The systemd units, started by a systemd: one that has booted a machine of its own."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from support.booted import BootedMachine
from support.containers import Images
from support.deploy_tools import DEPLOY
from support.machine_server import published, server, waiting
from support.waiting import wait_until_sync

IMAGE: Final = "nb-command-bridge"
NB_BRIDGE: Final = "/opt/nb-bridge/bin/nb-bridge"
INGRESSES: Final = ("nb-bridge-ingress@1", "nb-bridge-ingress@2")
WORKERS: Final = ("nb-bridge-worker@1", "nb-bridge-worker@2")
CONSOLE: Final = "nb-bridge-console"
SERVICES: Final = (*INGRESSES, *WORKERS, CONSOLE)
URLS: Final = tuple(f"http://127.0.0.1:{port}" for port in (9101, 9102, 9201, 9202, 8090))
# Of a process in /proc: no capability, none to be had, and system calls filtered.
NONE: Final = {"CapBnd": "0" * 16, "CapEff": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
ENDED_WITH_0: Final = {"Result": "success", "ExecMainCode": "1", "ExecMainStatus": "0"}
pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]


def enable_as_documented() -> list[str]:
    """The commands of deploy/README.md that start the units."""
    text = " ".join((DEPLOY / "README.md").read_text().split())
    found = re.findall(r"`(systemctl enable --now [^`]+)`", text)
    assert len(found) == 2
    return list(found)


@pytest.fixture(scope="module")
def booted(
    images: Images, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BootedMachine]:
    """The units and their files are where deploy/README.md has them; nothing of ours is started."""
    root = folder / "root"
    for unit in (DEPLOY / "systemd").glob("*.s*"):
        shutil.copy(unit, root / "etc/systemd/system")
    (root / "etc/nb-bridge/secrets").mkdir(parents=True)
    for environ in (DEPLOY / "systemd").glob("*.env"):
        shutil.copy(environ, root / "etc/nb-bridge")
    # Nothing in front has to notice first that an ingress is unready.
    (root / "etc/nb-bridge/ingress.env").write_text("NB_BRIDGE_DRAIN_DELAY_S=0\n")
    secret = root / "etc/nb-bridge/secrets/redis-url"
    secret.write_text("redis://127.0.0.1:6379/0\n")
    secret.chmod(0o600)
    machine = BootedMachine(
        tmp_path_factory.mktemp("booted"), root, images.root(IMAGE) / "opt/nb-bridge"
    )
    yield machine
    machine.close()


def children_of(machine: BootedMachine, service: str) -> set[str]:
    """The processes of a service that its first one has started."""
    main = machine.show(service, "MainPID")["MainPID"]
    return set(machine.run("cat", f"/proc/{main}/task/{main}/children").split())


def privileges(machine: BootedMachine, service: str) -> dict[str, str]:
    """What the kernel says of the first process of a service; it is not root's."""
    main = machine.show(service, "MainPID")["MainPID"]
    lines = machine.run("cat", f"/proc/{main}/status").splitlines()
    status = dict(line.split(":", 1) for line in lines)
    assert "0" not in status["Uid"].split()
    return {name: status[name].strip() for name in NONE}


def send(machine: BootedMachine, count: int) -> None:
    """Callbacks to the socket; each is answered 200 at once."""
    said = machine.run(NB_BRIDGE, "send", "--count", f"{count}", "--devices", "5", "--json")
    summary = json.loads(said)
    assert summary["answers"] == {"200": count}, summary


def test_the_units_start_answer_restart_reload_and_stop(
    booted: BootedMachine, tmp_path: Path
) -> None:
    for command in enable_as_documented():
        booted.run("bash", "-euc", command)
    send(booted, 30)  # Redis is away
    with server(booted, tmp_path) as redis:
        wait_until_sync(lambda: published(redis) == 30, "what was spooled to be published")
        wait_until_sync(lambda: waiting(redis) == 0, "workers to come back and handle everything")
        for ingress in INGRESSES:
            booted.run("systemctl", "restart", ingress)
            send(booted, 30)
        for worker in WORKERS:
            before = children_of(booted, worker)
            booted.run("systemctl", "reload", worker)
            wait_until_sync(lambda: not before & children_of(booted, worker), "another child")  # noqa: B023
        send(booted, 30)
        wait_until_sync(lambda: (published(redis), waiting(redis)) == (120, 0), "all to be handled")
        for url in URLS:
            wait_until_sync(lambda: booted.succeeds(NB_BRIDGE, "ping", "--url", url), url)  # noqa: B023
        for service in SERVICES:
            assert privileges(booted, service) == NONE
        booted.run("systemctl", "stop", "nb-bridge-ingress.socket", *SERVICES)
    for service in SERVICES:
        assert booted.show(service, "Result", "ExecMainCode", "ExecMainStatus") == ENDED_WITH_0
        assert "Traceback" not in booted.said(service)


def test_systemd_finds_no_fault_where_they_are_installed(booted: BootedMachine) -> None:
    files = [f"/etc/systemd/system/{unit.name}" for unit in (DEPLOY / "systemd").glob("*.s*")]
    said = booted.run(
        "sh", "-c", '"$@" 2>&1', "sh", "systemd-analyze", "verify", "--man=no", *files
    )
    assert [line for line in said.splitlines() if "nb-bridge" in line] == []
    for service in SERVICES:
        booted.run("systemd-analyze", "security", "--no-pager", "--threshold=16", service)
