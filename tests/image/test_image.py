"""The image, built and run: as its user, on a root that nobody may write to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.containers import Container, Engine, Images
from support.machine_server import published, server, waiting
from support.waiting import wait_until_sync

IMAGE = "nb-command-bridge"
SPOOL = "/var/lib/nb-bridge"
pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

RECEIVER = """
from consumers import PushMessageReceiver, request


class Receiver(PushMessageReceiver):
    def handleNBCommandStateChanged(self):
        status = request.json["result"]["resultCode"]
        # In one write: handlers run in several threads.
        print(f"handled {request.json['commandId']} {status}\\n", end="")
"""


def send(container: Container, count: int) -> None:
    """Callbacks from within; each is answered 200 at once."""
    said = container.run("nb-bridge", "send", "--count", f"{count}", "--devices", "5", "--json")
    summary = json.loads(said)
    assert summary["answers"] == {"200": count}


def handled(container: Container) -> list[str]:
    """What the receiver printed."""
    return [line for line in container.log.splitlines() if line.startswith("handled ")]


def becomes_healthy(container: Container) -> None:
    wait_until_sync(container.is_healthy, "the health check to pass")


def derive(images: Images, folder: Path, name: str, *lines: str) -> None:
    """An image on top, with what is in the folder."""
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text("\n".join([f"FROM {IMAGE}", *lines, ""]))
    images.build(folder, dockerfile, name)


def test_it_has_what_it_runs_and_nothing_to_build_with(images: Images, engine: Engine) -> None:
    config = images.inspect(IMAGE)
    assert config["User"] == "10001:10001"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    container = engine.start(
        IMAGE, "-c", "exec sleep 3600", name="still", options=["--entrypoint=sh"]
    )
    for program in ("gcc", "cc", "make", "git"):
        assert not container.succeeds("sh", "-c", f"command -v {program}")
    for folder in ("/src", "/dist", "/root/.cache"):
        assert not container.succeeds("ls", folder)
    assert container.run("python", "-c", "import bridge; print(bridge.__file__)").startswith(
        "/opt/nb-bridge/lib/"
    )
    # None of what its user runs is its user's to change.
    assert container.run("find", "/opt/nb-bridge", "/app", "-user", "10001") == ""


def test_callbacks_are_kept_while_redis_is_away_and_handled_by_a_receiver_on_top(
    images: Images, engine: Engine, tmp_path: Path
) -> None:
    ingress = engine.start(IMAGE, name="ingress", DRAIN_DELAY_S="0")
    becomes_healthy(ingress)
    assert ingress.run("id", "-u").strip() == "10001"
    assert ingress.writable == {"/tmp", SPOOL}
    assert not ingress.succeeds("touch", "/app/written")
    send(ingress, 30)

    (tmp_path / "shop.py").write_text(RECEIVER)
    derive(
        images, tmp_path, "shop",
        "COPY --chmod=644 shop.py /app/", "ENV NB_BRIDGE_RECEIVER=/app/shop.py:Receiver",
    )  # fmt: skip
    with server(engine.machine, tmp_path) as redis:
        wait_until_sync(lambda: published(redis) == 30, "what was spooled to be published")
        worker = engine.start("shop", "worker", name="worker", ADMIN_PORT="8082")
        becomes_healthy(worker)
        wait_until_sync(lambda: waiting(redis) == 0, "the receiver to handle everything")
        send(ingress, 30)
        wait_until_sync(lambda: len(handled(worker)) == 60, "the receiver to handle the rest")
        assert len(set(handled(worker))) == 60
        assert worker.writable == {"/tmp", SPOOL}
        assert (worker.stop(), ingress.stop()) == (0, 0)
    assert "Traceback" not in ingress.log + worker.log


def test_what_pip_installs_in_an_image_on_top_is_found(
    images: Images, engine: Engine, tmp_path: Path
) -> None:
    nb_bridge = [sys.executable, "-m", "bridge", "new", "receiver", "shop"]
    subprocess.run(nb_bridge, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "../dist"]
    subprocess.run(build, cwd=tmp_path / "shop", check=True, capture_output=True, timeout=120)
    derive(
        images, tmp_path, "packaged",
        "USER root",
        "RUN --mount=type=bind,source=dist,target=/dist pip install --no-index /dist/*.whl",
        "USER 10001:10001",
    )  # fmt: skip
    with server(engine.machine, tmp_path):
        worker = engine.start("packaged", "worker", name="packaged")
        becomes_healthy(worker)
        assert worker.run("id", "-u").strip() == "10001"
        assert [
            it["name"]
            for it in json.loads(worker.run("nb-bridge", "receivers", "--json"))["receivers"]
        ] == ["shop"]
        assert worker.stop() == 0


def test_the_console_is_in_it(engine: Engine, tmp_path: Path) -> None:
    # As in compose.yaml: it answers where its pages are.
    ping = "--health-cmd=nb-bridge ping --url http://127.0.0.1:8090"
    with server(engine.machine, tmp_path):
        console = engine.start(IMAGE, "console", name="console", options=[ping])
        becomes_healthy(console)
        assert console.writable == {"/tmp", SPOOL}
        assert console.stop() == 0
