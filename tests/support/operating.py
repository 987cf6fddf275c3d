"""A running system, and the operators' commands called against it.

The commands run in this process, as a shell would call them; ingress and worker are processes.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge import cli
from support import history
from support.history import History
from support.ingresses import body
from support.processes import Serve, environ_for
from support.programs import Program, Programs
from support.waiting import wait_until_sync

PARTITIONS = 4
_PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed with --json."""
        found = json.loads(self.out)
        assert found["schema"] == 1
        return found


class System:
    """One namespace on a server, its ingress and its workers, and `nb` as in a shell there."""

    def __init__(
        self,
        url: str,
        namespace: str,
        programs: Programs,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.folder = programs.folder
        self.namespace = namespace
        self._programs = programs
        self._ingresses: list[Serve] = []
        self.environ = environ_for(self.folder, url, namespace, drain_delay_s="0")
        for name, value in self.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(os, "environ", os.environ.copy())  # options write into it
        self.client = redis.Redis.from_url(url, protocol=2)

    # --- programs

    def start_ingress(self, **settings: str) -> Serve:
        """An ingress; it is the one that `post` calls from now on."""
        more = {f"NB_BRIDGE_{name.upper()}": value for name, value in settings.items()}
        environ = {"NB_BRIDGE_PARTITIONS": str(PARTITIONS), **self.environ, **more}
        self._ingresses.append(Serve(environ))
        return self._ingresses[-1]

    def start_worker(self, **settings: Any) -> Program:
        """A worker with `history.AsyncReceiver`, whose failures wait long; it owns everything."""
        values = {
            "partitions": PARTITIONS,
            "lease_ttl_s": 1,
            "admin_port": 0,
            "concurrency": 8,
            "backoff_base_s": 120,
            "backoff_max_s": 120,
            **settings,
        }
        more = {f"NB_BRIDGE_{name.upper()}": str(value) for name, value in values.items()}
        environ = {**self.environ, **more, history.FOLDER_VARIABLE: str(self.folder)}
        return self._programs.start("worker", "--receiver", history.ASYNC, environ=environ)

    def start(self, *arguments: str) -> Program:
        """A command as a process of its own."""
        return self._programs.start(*arguments, environ=self.environ)

    def stop(self) -> None:
        """Ends the ingresses; the workers end with the test."""
        for ingress in self._ingresses:
            ingress.kill()
        self.client.close()

    # --- traffic

    def post(self, raw: bytes) -> tuple[int, bytes]:
        """Status and text of the newest ingress's answer."""
        request = urllib.request.Request(self._ingresses[-1].url, data=raw)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def send(self, device: str, detail: Any = None, command: str = "c", code: str = "SENT") -> None:
        """One callback, answered 200; `detail` tells the receiver what to do."""
        assert self.post(body(device, command, code, detail))[0] == 200

    @property
    def history(self) -> History:
        """What the receivers wrote down."""
        return History(self.folder)

    # --- commands

    def nb(self, *arguments: str) -> Said:
        """`nb-bridge …`."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = cli.run(list(arguments))
        return Said(code, out.getvalue(), err.getvalue())

    def json(self, *arguments: str) -> Any:
        """What a command that finds nothing wrong prints with --json."""
        said = self.nb(*arguments, "--json")
        assert said.code == 0, said
        return said.document

    def group(self, name: str = "default") -> Any:
        """A group as `status` sees it."""
        (found,) = [each for each in self.json("status")["groups"] if each["name"] == name]
        return found

    def unhandled_is(self, count: int) -> Any:
        """The group, once every partition is owned and so many notifications have no outcome."""

        def settled() -> Any:
            groups = self.json("status")["groups"]
            if not groups or groups[0]["unowned"] or groups[0]["unhandled"] != count:
                return None
            return groups[0]

        return wait_until_sync(settled, f"{count} to be unhandled")


# --- the page that documents the shapes


def documented(title: str, which: int = 0) -> Any:
    """The JSON (the first, the second…) that docs/commands.md has under a heading `title…`."""
    section = re.split(r"^#+ ", _PAGE.read_text(), flags=re.MULTILINE)
    (text,) = [each for each in section if each.startswith(title)]
    found = re.findall(r"^```json\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return json.loads(found[which])


def check_shape(document: Any, example: Any, where: str = "it") -> None:
    """Asserts that a document has the names of the documented one, and values of its types.

    Each element of a list is like the example's first. `null` stands for any type.
    """
    if document is None or example is None:
        return
    assert type(document) is type(example), where
    if isinstance(document, dict):
        assert set(document) == set(example), where
        for name, value in document.items():
            check_shape(value, example[name], f"{where}[{name!r}]")
    elif isinstance(document, list) and example:
        for number, value in enumerate(document):
            check_shape(value, example[0], f"{where}[{number}]")


def run(*words: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Another program, to its end."""
    return subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
