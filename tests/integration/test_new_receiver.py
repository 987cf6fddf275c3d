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
