"""The systemd units."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

from bridge.cli import COMMANDS
from bridge.settings import Settings
from consumers.worker.process.generation import STOP_SLACK_S
from support.deploy_tools import DEPLOY, check
from support.deployed_settings import taken

SYSTEMD = DEPLOY / "systemd"
SERVICES = ["nb-bridge-ingress@", "nb-bridge-worker@", "nb-bridge-console"]
SCRAPED = SERVICES[:2]


def lines(unit: str) -> list[tuple[str, str]]:
    """Keys and values of a unit, in order; a key may come twice."""
    text = (SYSTEMD / unit).read_text()
    return [(key, value) for key, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)]


def values(service: str, key: str) -> list[str]:
    return [value for found, value in lines(f"{service}.service") if found == key]


def environ(service: str) -> dict[str, str]:
    """What instance 1 has in its environment, files first, as systemd reads it."""
    found: dict[str, str] = {}
    for file in values(service, "EnvironmentFile"):
        path = SYSTEMD / Path(file.removeprefix("-")).name
        if path.exists():  # the others are the user's to make
            found |= dict(re.findall(r"^(\w+)=(.*)$", path.read_text(), re.MULTILINE))
    for variable in values(service, "Environment"):
        name, _, value = variable.partition("=")
        found[name] = value.replace("%i", "1")
    return found


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Copies of the units whose program exists on this machine; services as instance 1."""
    copies = []
    for source in sorted(SYSTEMD.glob("*.s*")):
        copy = tmp_path / source.name.replace("@.", "@1.")
        copy.write_text(source.read_text().replace("/opt/nb-bridge/bin/nb-bridge", sys.executable))
        copies.append(copy)
    assert len(copies) == 4
    return copies


def test_systemd_finds_no_fault(units: list[Path]) -> None:
    said = check("systemd-analyze", "verify", "--man=no", *units)
    ours = [line for line in said.splitlines() if "nb-bridge" in line]  # not the machine's others
    assert ours == []


def test_systemd_finds_the_services_well_contained(units: list[Path]) -> None:
    for unit in units:
        if unit.suffix == ".service":
            # Exposure in tenths, of 10.0; what has no line about it at all has 9.6.
            check("systemd-analyze", "security", "--offline=true", "--threshold=16", unit)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_takes_its_settings_and_is_given_time_to_stop(
    service: str, tmp_path: Path
) -> None:
    settings = taken(environ(service), tmp_path)
    (timeout_s,) = values(service, "TimeoutStopSec")
    slack_s = STOP_SLACK_S if "worker" in service else 0
    assert float(timeout_s) > settings.grace_s + slack_s
    (command,) = values(service, "ExecStart")
    assert command.split()[-1] in COMMANDS


@pytest.mark.parametrize("service", SERVICES)
def test_a_secret_that_a_setting_reads_is_loaded_as_a_credential(service: str) -> None:
    loaded = {value.partition(":")[0] for value in values(service, "LoadCredential")}
    read = {
        value.removeprefix("%d/")
        for name, value in environ(service).items()
        if name.endswith("_FILE")
    }
    assert read == loaded == {"redis-url"}


def test_each_ingress_accepts_from_the_one_socket_and_the_socket_starts_one() -> None:
    socket = "nb-bridge-ingress.socket"
    assert values("nb-bridge-ingress@", "Sockets") == [socket]
    assert dict(lines(socket))["Service"] == "nb-bridge-ingress@1.service"


def test_an_ingress_that_starts_does_not_have_the_others_wait_in_accept() -> None:
    assert values("nb-bridge-ingress@", "NonBlocking") == ["yes"]


def test_a_handler_out_of_memory_does_not_take_the_parent_along() -> None:
    assert values("nb-bridge-worker@", "OOMPolicy") == ["continue"]
    assert values("nb-bridge-worker@", "KillMode") == ["mixed"]


@pytest.mark.parametrize("service", SCRAPED)
def test_prometheus_looks_where_the_admin_listeners_are(service: str, tmp_path: Path) -> None:
    settings = taken(environ(service), tmp_path)
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in scraped}
    first, *_ = jobs[service.removesuffix("@")]
    assert first == f"{settings.admin_host}:{settings.admin_port}"


def test_programs_on_one_machine_share_what_they_have_to_agree_on(tmp_path: Path) -> None:
    for service in SERVICES:
        settings = taken(environ(service), tmp_path)
        assert settings.namespace == Settings().namespace
        assert settings.partitions == Settings().partitions


def test_the_console_is_for_this_machine_and_only_shows(tmp_path: Path) -> None:
    settings = taken(environ("nb-bridge-console"), tmp_path)
    assert settings.console_host == "127.0.0.1"
    assert settings.console_actions == "off"
