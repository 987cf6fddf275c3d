"""The image, and compose.yaml: the whole bridge on one machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge import __version__
from bridge.cli import COMMANDS
from support.deploy_tools import DEPLOY, ROOT, check
from support.deployed_settings import taken

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = [name for name, it in SERVICES.items() if it["image"] == f"nb-command-bridge:{__version__}"]


def copied_sources() -> list[str]:
    """What the Dockerfile copies from the project."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def seconds(duration: str) -> int:
    found = re.fullmatch(r"(\d+)s", duration)
    assert found is not None
    return int(found[1])


def interpolated(environ: dict[str, str]) -> dict[str, str]:
    """With what a variable of the user's is where it is not set: `${NAME:-default}`."""
    default = re.compile(r"\$\{\w+:-(.*?)\}")
    return {name: default.sub(lambda found: found[1], value) for name, value in environ.items()}


# --- the image ------------------------------------------------------------------------------------


def test_hadolint_finds_no_fault() -> None:
    check("hadolint", "--failure-threshold", "info", "Dockerfile")


def test_what_the_dockerfile_copies_reaches_the_builder() -> None:
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines
    assert sorted(copied_sources()) == sorted(allowed)


def test_the_wheel_is_whole_when_built_from_nothing_but_what_is_copied(tmp_path: Path) -> None:
    for source in copied_sources():
        if (ROOT / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source, tmp_path / source, ignore=ignored)
        else:
            shutil.copy(ROOT / source, tmp_path / source)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True, timeout=240)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    needed = {
        str(file.relative_to(ROOT))
        for package in ("bridge", "consumers")
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert needed <= packed


def test_the_image_runs_as_nobody_in_particular() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]


@pytest.mark.parametrize("instruction", ["HEALTHCHECK .*CMD", "CMD"])
def test_the_image_starts_and_asks_by_commands_that_exist(instruction: str) -> None:
    found = re.search(rf"^{instruction} \[(.+)\]$", DOCKERFILE, re.MULTILINE)
    assert found is not None
    command = re.findall(r'"([^"]+)"', found[1])
    assert command[-1] in COMMANDS


# --- compose --------------------------------------------------------------------------------------


def test_compose_follows_its_specification() -> None:
    check("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")


@pytest.mark.parametrize("name", OURS)
def test_a_program_in_compose_takes_its_settings_and_is_given_time_to_stop(
    name: str, tmp_path: Path
) -> None:
    service = SERVICES[name]
    settings = taken(interpolated(service["environment"]), tmp_path)
    assert service["command"][0] in COMMANDS
    assert seconds(service["stop_grace_period"]) > settings.grace_s + 10


def test_there_are_two_ingresses_behind_the_proxy_and_two_workers() -> None:
    ingresses = [name for name in OURS if SERVICES[name]["command"] == ["serve"]]
    assert len(ingresses) == 2
    upstreams = SERVICES["proxy"]["environment"]["CALLBACK_UPSTREAMS"].split()
    assert upstreams == [f"{name}:8080" for name in ingresses]
    assert SERVICES["worker"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_writes_to_its_volumes_only_and_has_no_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_only_the_proxy_can_be_reached_from_outside() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"proxy": ["8443:8443"], "console": ["127.0.0.1:8090:8090"]}
    networks = COMPOSE["networks"]
    for name in ("front", "back"):
        assert networks[name]["internal"] is True
    assert SERVICES["redis"]["networks"] == ["back"]


def test_the_ingresses_trust_the_network_the_proxy_is_in(tmp_path: Path) -> None:
    (address,) = COMPOSE["networks"]["front"]["ipam"]["config"]
    settings = taken(SERVICES["ingress-1"]["environment"], tmp_path)
    assert settings.trusted_proxies == (ip_network(address["subnet"]),)


def test_the_console_is_for_who_asks_for_it_has_a_token_and_wants_to_look(tmp_path: Path) -> None:
    console = SERVICES["console"]
    assert [name for name, it in SERVICES.items() if "profiles" in it] == ["console"]
    settings = taken(interpolated(console["environment"]), tmp_path)
    assert settings.console_tokens == ("secret",)
    assert settings.console_actions == "off"
    assert console["ports"][0].endswith(f":{settings.console_port}")
    (secret,) = console["secrets"]
    assert secret in COMPOSE["secrets"]
    assert console["environment"]["NB_BRIDGE_CONSOLE_TOKENS_FILE"] == f"/run/secrets/{secret}"


def test_the_console_is_asked_for_its_health_where_it_listens(tmp_path: Path) -> None:
    console = SERVICES["console"]
    settings = taken(interpolated(console["environment"]), tmp_path)
    url = console["healthcheck"]["test"][-1]
    assert url == f"http://127.0.0.1:{settings.console_port}"


def test_the_proxy_calls_the_console_by_a_name_that_it_has() -> None:
    environ = SERVICES["proxy"]["environment"]
    assert environ["CONSOLE_SITE"] == SERVICES["console"]["environment"]["NB_BRIDGE_CONSOLE_NAMES"]
    assert environ["CONSOLE_UPSTREAM"] == "console:8090"
    assert "front" in SERVICES["console"]["networks"]


def test_the_image_has_what_the_console_needs() -> None:
    found = re.search(r'^ARG EXTRAS="\[(.+)\]"$', DOCKERFILE, re.MULTILINE)
    assert found is not None
    assert "console" in found[1].split(",")


def test_files_that_compose_mounts_exist() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith(".")]
    assert files
    assert all((DEPLOY / file).is_file() for file in files)
    named = {mount.split(":")[0] for mount in mounts if not fnmatch(mount, ".*")}
    assert named == set(COMPOSE["volumes"])
