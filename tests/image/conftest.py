"""The image, built once; and where containers of it and the units run.

Collected only where it is named, as `make image-test` does: building takes a minute, and the tests
of one process share what is built.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from support.containers import Engine, Images
from support.deploy_tools import DEPLOY, ROOT
from support.machine import need_root, run, tool

IMAGE: Final = "nb-command-bridge"
_FOLDER: Final = ROOT / ".image-test"
_HERE: Final = Path(__file__).parent


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Part of no run but one of this folder."""
    named = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(_HERE in (path, *path.parents) for path in named) else True


@pytest.fixture(scope="session")
def folder() -> Path:
    """Where images and roots are. They stay until the next run: to be looked at, and because a file
    system may take longer to free so many files than all of this does.
    """
    need_root()
    for name in ("mmdebstrap", "buildah", "podman", "crun", "ip", "unshare", "nsenter"):
        tool(name)
    shutil.rmtree(_FOLDER, ignore_errors=True)
    _FOLDER.mkdir()
    return _FOLDER


@pytest.fixture(scope="session")
def images(folder: Path) -> Images:
    """A store with the image in it, built of deploy/Dockerfile on a base of the name there."""
    (python,) = re.findall(r"^ARG PYTHON=(.+)$", DOCKERFILE, re.MULTILINE)
    (base,) = re.findall(r"^ARG BASE=(.+)$", DOCKERFILE, re.MULTILINE)
    base = base.replace("${PYTHON}", python)
    run(
        "bash", _HERE / "base.sh", base.rpartition("-")[2], folder / "base.tar", folder / "root",
        bound_s=900,
    )  # fmt: skip
    images = Images(folder)
    images.import_root(folder / "base.tar", f"docker.io/library/{base}")
    images.build(ROOT, DEPLOY / "Dockerfile", IMAGE)
    return images


DOCKERFILE: Final = (DEPLOY / "Dockerfile").read_text()


@pytest.fixture(scope="session")
def _engine(images: Images, folder: Path) -> Iterator[Engine]:
    engine = Engine(images, folder)
    yield engine
    engine.close()


@pytest.fixture
def engine(_engine: Engine) -> Iterator[Engine]:
    """Containers that do not outlive the test, on one loopback."""
    yield _engine
    _engine.remove_all()
