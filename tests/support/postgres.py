"""A PostgreSQL server of Debian's package, for as long as a test needs it.

It refuses to run as root: started by root, it runs as the package's user.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from bridge.store.embedded import die_with_parent
from support.deploy_tools import program
from support.ports import free_port
from support.waiting import wait_until_sync

_USER = "postgres"


def _program(name: str) -> str:
    """Its path; Debian puts it beside its version's other programs, not on the PATH."""
    places = map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))
    path = os.pathsep.join([*places, os.environ["PATH"]])
    return program(name, path=path, advice="install the package postgresql")


class Postgres:
    """One server on a free port; may be stopped and started again, its data kept."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._port = free_port()
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._as = {"user": _USER, "group": pwd.getpwnam(_USER).pw_gid, "extra_groups": []}
            shutil.chown(folder, _USER)
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            [_program("initdb"), "-D", self._data, "-U", _USER, "-A", "trust", "-E", "UTF8",
             "--no-instructions"],
            check=True, capture_output=True, cwd=folder, **self._as,
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Of its only database."""
        return f"postgresql://{_USER}@127.0.0.1:{self._port}/{_USER}"

    def start(self) -> None:
        """Returns when it answers."""
        self._process = subprocess.Popen(
            [_program("postgres"), "-D", self._data, "-p", str(self._port),
             "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=self._data.parent, preexec_fn=die_with_parent(), **self._as,
        )  # fmt: skip
        wait_until_sync(self._answers, "PostgreSQL to answer")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query finds."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(query).fetchall()  # type: ignore[call-overload, no-any-return]

    def stop(self) -> None:
        """At once: clients lose their connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # "fast", postgres(1)
            self._process.wait(30)
            self._process = None


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A started one in a folder of its own: pytest's are closed to other users."""
    folder = Path(tempfile.mkdtemp(prefix="nb-postgres-"))
    server: Postgres | None = None
    try:
        server = Postgres(folder)
        server.start()
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
