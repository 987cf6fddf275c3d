"""Wheel and sdist as strangers meet them: `make dist`.

Builds both into `dist`, has them judged, and installs each into an environment that has nothing
else and knows nothing of the clone: there the programs answer, and a package of `nb-bridge new
receiver` gets what `nb-bridge send` sends. What the wheel's environment is made of is left beside
the packages, as a bill of materials in CycloneDX's JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bridge import __version__
from support.ports import free_port
from support.waiting import wait_until_sync

ROOT: Final = Path(__file__).parents[1]
DIST: Final = ROOT / "dist"
BILL: Final = DIST / "nb-command-bridge.cdx.json"
ASSETS: Final = ROOT / "bridge" / "console" / "assets"
PACKAGES: Final = ("bridge", "consumers")
IN_SDIST: Final = (".gitignore", "CHANGELOG.md", "LICENSE", "MIGRATING.md", "PKG-INFO", "README.md",
                   "SECURITY.md", "pyproject.toml")  # fmt: skip
"""What an sdist has beside the two packages; the first is what hatchling leaves out by."""
IN_WHEEL: Final = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
BOUND_S: Final = 300.0


# --- what is in them


def sources() -> list[str]:
    """Every file of the two packages, by its path below the project's root."""
    return [
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]


def expected(name: str) -> list[str]:
    """What an archive of this name should have."""
    if name.endswith(".whl"):
        about = f"nb_command_bridge-{__version__}.dist-info"
        return [*sources(), *(f"{about}/{file}" for file in IN_WHEEL)]
    return [f"nb_command_bridge-{__version__}/{file}" for file in (*sources(), *IN_SDIST)]


def names(archive: Path) -> list[str]:
    """The files in a wheel or an sdist."""
    if archive.suffix == ".whl":
        return zipfile.ZipFile(archive).namelist()
    with tarfile.open(archive) as tar:
        return [member.name for member in tar if member.isfile()]


def faults(found: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """What is there and should not be, and the other way round."""
    there, due = set(found), set(wanted)
    stray = [f"{name} does not belong there" for name in sorted(there - due)]
    return [*stray, *(f"{name} is missing" for name in sorted(due - there))]


# --- what they are made of


def vendored() -> list[dict[str, Any]]:
    """What the console ships of others, by the table in the README of its assets."""
    row = r"^\| `(\S+)` \|.*`(\S+)` \(`\S+`\) \| (\S+) \| Zero-Clause BSD"
    ((file, name, version),) = re.findall(row, (ASSETS / "README.md").read_text(), re.MULTILINE)
    digest = hashlib.sha256((ASSETS / file).read_bytes()).hexdigest()
    purl = f"pkg:npm/{name}@{version}"
    return [
        {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
            "licenses": [{"license": {"id": "0BSD"}}],
            "hashes": [{"alg": "SHA-256", "content": digest}],
        }
    ]


def completed(bill: dict[str, Any], wheel: Path) -> dict[str, Any]:
    """The bill with what no environment says: whose it is, and what was copied into the wheel."""
    root = bill["metadata"]["component"]
    root["version"] = __version__
    root["purl"] = f"pkg:pypi/nb-command-bridge@{__version__}"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    root["hashes"] = [{"alg": "SHA-256", "content": digest}]
    # What attests bills takes none without a number; of the same wheel it is the same.
    bill["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, f"{root['purl']}#{digest}").urn
    others = vendored()
    bill["components"] += others
    bill["dependencies"] += [{"ref": other["bom-ref"]} for other in others]
    (of_root,) = [it for it in bill["dependencies"] if it["ref"] == root["bom-ref"]]
    of_root["dependsOn"] += [other["bom-ref"] for other in others]
    return bill


# --- what they do


def tool(*command: str | Path) -> None:
    """Runs a program of .venv; what it says is shown only if it finds fault."""
    path = Path(sys.executable).with_name(str(command[0]))
    done = subprocess.run(
        [path, *command[1:]], cwd=ROOT, text=True, timeout=BOUND_S, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{command[0]}:\n{done.stdout}")


class Environment:
    """A new environment with one requirement in it, and an empty folder to work in."""

    def __init__(self, folder: Path, requirement: str) -> None:
        self.folder = folder / "work"
        self.venv = folder / "venv"
        self.folder.mkdir(parents=True)
        tool("uv", "venv", "--quiet", "--python", sys.executable, self.venv)
        self.install(requirement)

    def install(self, requirement: str) -> None:
        """In the versions of requirements.lock, whose hashes hold."""
        tool(
            "uv", "pip", "install", "--quiet", "--python", self.venv,
            "--constraint", "requirements.lock", "--build-constraint", "requirements.lock",
            requirement,
        )  # fmt: skip

    def run(self, *command: str, code: int = 0) -> str:
        """What a program of the environment says until it ends, with `code`."""
        with self.running(*command, code=code) as (program, log):
            program.wait(timeout=BOUND_S)
        return log.read_text()

    @contextmanager
    def running(
        self, *command: str, code: int = 0
    ) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        """A program of the environment, and the file it writes to; afterwards it is told to end."""
        log = self.folder.with_name(f"{command[1].strip('-')}.log")
        environ = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG")}
        with log.open("wb") as file:
            program = subprocess.Popen(
                [self.venv / "bin" / command[0], *command[1:]],
                cwd=self.folder,
                env={**environ, "PATH": os.defpath, "NB_BRIDGE_ADMIN_PORT": "0"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            yield program, log
            program.terminate()
            ended = program.wait(timeout=BOUND_S)
        finally:
            program.kill()
        if ended != code or "Traceback" in log.read_text():
            raise SystemExit(f"{' '.join(command)} ended with {ended}:\n{log.read_text()}")

    def answers(self) -> None:
        """Its programs say what they are, and what is missing here, in a line."""
        for program in ("nb-bridge", "nb-command-bridge"):
            said = self.run(program, "--version")
            assert said == f"nb-bridge {__version__}\n", said
        assert "Commands:" in self.run("nb-bridge", "--help")
        assert json.loads(self.run("nb-bridge", "settings", "--json"))["schema"] == 1
        nobody = f"redis://127.0.0.1:{free_port()}/0"
        self.run("nb-bridge", "check", "--redis-url", nobody, code=3)
        place = self.run("python", "-c", "import bridge, consumers; print(consumers.__file__)")
        assert Path(place.strip()).is_relative_to(self.venv), place

    def carries(self) -> None:
        """A receiver written here gets what is sent here, and the console shows its pages."""
        self.run("nb-bridge", "new", "receiver", "shop")
        self.install(str(self.folder / "shop"))
        url = f"http://127.0.0.1:{free_port()}"
        with self.running("nb-bridge", "dev", "shop", "--port", url.rpartition(":")[2]) as (
            dev,
            log,
        ):

            def says(text: str) -> str:
                assert dev.poll() is None, log.read_text()
                found = re.search(text, log.read_text())
                return found[0] if found else ""

            console = wait_until_sync(lambda: says(r"http://\S+(?=\n  callbacks)"), "dev to start")
            self.run("nb-bridge", "send", "--url", url)
            wait_until_sync(lambda: says("handled   SUCCESSFUL"), "the receiver to be called")
            page = fetched(console)
            assets = re.findall(r'(?:src|href)="(/assets/[^"]+)"', page)
            assert len(assets) > 2, page
            for asset in assets:
                assert fetched(console.rstrip("/") + asset)


def fetched(url: str) -> str:
    """A page, as soon as somebody answers there."""

    def page() -> str:
        try:
            with urllib.request.urlopen(url, timeout=BOUND_S) as answer:
                return str(answer.read().decode())
        except ConnectionError:
            return ""
        except urllib.error.URLError as error:
            if isinstance(error.reason, ConnectionError):
                return ""
            raise

    return wait_until_sync(page, f"{url} to answer")


def main() -> int:
    """Exit code 0: both packages are fit for strangers."""
    # The wheel is made from the sdist, as anybody might make it.
    of_venv = ("--no-build-isolation", "--python", sys.executable)
    tool("uv", "build", "--quiet", *of_venv, "--clear", "--out-dir", DIST)
    packages = sorted(DIST.glob("nb_command_bridge-*"))
    sdist, wheel = sorted(packages, key=lambda package: package.suffix)
    tool("twine", "check", "--strict", *packages)
    tool("check-wheel-contents", wheel)
    for package in packages:
        if found := faults(names(package), expected(package.name)):
            raise SystemExit("\n".join([f"{package.name}:", *found]))
    with tempfile.TemporaryDirectory() as folder:
        whole = Environment(Path(folder) / "wheel", f"{wheel}[console,embedded]")
        whole.answers()
        tool(
            "cyclonedx-py", "environment", "--output-reproducible", "--no-validate",
            "--pyproject", "pyproject.toml", "--output-file", BILL, whole.venv,
        )  # fmt: skip
        BILL.write_text(json.dumps(completed(json.loads(BILL.read_text()), wheel), indent=2))
        whole.carries()
        Environment(Path(folder) / "sdist", str(sdist)).answers()
    print(f"dist: {wheel.name}, {sdist.name} and {BILL.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
