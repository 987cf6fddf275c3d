"""`nb-bridge new receiver DIR`: what it writes is installed, tested and run, from nothing."""

from __future__ import annotations

import os
import sys

import pytest

from support.operating import run
from support.ports import free_port
from support.programs import Programs

pytestmark = pytest.mark.real


def test_what_is_written_can_be_installed_tested_and_run(programs: Programs) -> None:
    assert programs.run("new", "receiver", "my-demo").process.returncode == 0
    folder, site = programs.folder / "my-demo", programs.folder / "site"
    python = (sys.executable, "-m")
    installed = run(
        *python, "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index",
        "--no-deps", "--no-build-isolation", "--target", str(site), str(folder),
        folder=programs.folder,
    )  # fmt: skip
    assert installed.returncode == 0, installed.stderr

    # asyncio's plugin warns of what its own new users are to set; it is not theirs here.
    words = (*python, "pytest", "-q", "-p", "no:asyncio", "-W", "error")
    tested = run(*words, folder=folder, PYTHONPATH=str(site))
    assert tested.returncode == 0, tested.stdout
    assert "4 passed" in tested.stdout

    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environ = {"PYTHONPATH": path, "NB_BRIDGE_ADMIN_PORT": "0"}
    port = str(free_port())
    dev = programs.start("dev", "my-demo", "--port", port, environ=environ)
    dev.prints("receiver   my-demo")
    sent = programs.run("send", "--url", f"http://127.0.0.1:{port}")
    assert sent.process.returncode == 0, sent.errors
    dev.prints("handled   SUCCESSFUL")
    assert dev.stop() == 0


@pytest.mark.parametrize("form", ["v5", "aep"])
def test_what_is_written_for_another_form_passes_its_tests_and_gets_what_is_sent(
    form: str, programs: Programs
) -> None:
    assert programs.run("new", "receiver", "my-demo", "--for", form).process.returncode == 0
    folder = programs.folder / "my-demo"
    words = (sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-W", "error")
    tested = run(*words, folder=folder, PYTHONPATH=str(folder / "src"))
    assert tested.returncode == 0, tested.stdout
    assert "5 passed" in tested.stdout
    checked = run(sys.executable, "-m", "mypy", "--strict", "src", "tests", folder=folder)
    assert checked.returncode == 0, checked.stdout
    port = str(free_port())
    receiver = "my-demo/src/my_demo/receiver.py:Receiver"
    environ = {"NB_BRIDGE_ADMIN_PORT": "0"}
    dev = programs.start("dev", receiver, "--port", port, environ=environ)
    dev.prints("Ctrl-C ends it")
    sent = programs.run("send", "--url", f"http://127.0.0.1:{port}", "--form", form)
    assert sent.process.returncode == 0, sent.errors
    dev.prints("handled   SUCCESSFUL")
    assert dev.stop() == 0
