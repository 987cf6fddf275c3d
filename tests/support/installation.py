"""The whole bridge as its users run it: ingress, worker and console, real processes on free ports.

The worker's receiver is a file that the test may mend.
"""

from __future__ import annotations

import json
import signal
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.store.embedded import EmbeddedServer
from support.ingresses import body
from support.programs import Program, Programs
from support.waiting import wait_until_sync
from support.workers import logged

# Fails where `resultDetail` says with which text; with "no: …" for good.
BROKEN = """
from consumers import PushMessageReceiver, Reject, request

class Receiver(PushMessageReceiver):
    def handleNBCommandStateChanged(self):
        detail = request.json["result"].get("resultDetail")
        if detail and detail.startswith("no:"):
            raise Reject(detail)
        if detail:
            raise ValueError(detail)
"""
MENDED = """
from consumers import PushMessageReceiver

class Receiver(PushMessageReceiver):
    def handleNBCommandStateChanged(self):
        pass
"""
_BOUND_S = 60.0


@dataclass(frozen=True)
class Running:
    """One console, and where it is."""

    program: Program
    url: str


class Installation:
    """One namespace on `server`; programs end with the test."""

    def __init__(
        self, server: EmbeddedServer, programs: Programs, *, namespace: str | None = None
    ) -> None:
        self.server = server
        self.namespace = namespace or f"t-{uuid.uuid4().hex[:12]}"
        self._programs = programs
        self._receiver = programs.folder / "receiver.py"
        self._ingress: Program | None = None
        self._worker: Program | None = None

    # --- programs

    def start_ingress(self, **settings: Any) -> Program:
        """An ingress; callbacks go to the last one."""
        ingress = self._start("serve", host="127.0.0.1", port=0, **settings)
        self._listening(ingress, "ingress_listening")
        self._ingress = ingress
        return ingress

    def start_worker(self, source: str = BROKEN, **settings: Any) -> Program:
        """A worker with a receiver of this source; what fails twice is dead."""
        self._receiver = self._programs.folder / f"{settings.get('group', 'receiver')}.py"
        self._receiver.write_text(source)
        values = {
            "receiver": f"{self._receiver}:Receiver",
            "lease_ttl_s": 5,
            "max_attempts": 2,
            "backoff_base_s": 0.05,
            "backoff_max_s": 0.1,
            "give_up_after_s": 0,  # every failure counts
        }
        self._worker = self._start("worker", **{**values, **settings})
        return self._worker

    def mend(self, source: str = MENDED) -> None:
        """Replaces the receiver's file and reloads the worker; returns when the new code runs."""
        worker = self._worker
        assert worker is not None
        before = len(logged(worker, "child_replaced"))
        self._receiver.write_text(source)
        worker.signal(signal.SIGHUP)
        wait_until_sync(
            lambda: len(logged(worker, "child_replaced")) > before,
            "the worker to run the new code",
            bound_s=_BOUND_S,
        )

    def start_console(self, **settings: Any) -> Running:
        """A console that may act, unless `settings` say otherwise."""
        values = {"console_port": 0, "console_actions": "on", **settings}
        program = self._start("console", **values)
        line = self._listening(program, "console_listening")
        return Running(program, str(line["url"]))

    def run(self, *arguments: str) -> Program:
        """A command of the command line, ended."""
        return self._programs.run(*arguments, environ=self._environ({}))

    def _start(self, command: str, **settings: Any) -> Program:
        return self._programs.start(command, environ=self._environ(settings))

    def _environ(self, settings: Mapping[str, Any]) -> dict[str, str]:
        values = {
            "redis_url": self.server.url,
            "namespace": self.namespace,
            "partitions": 4,
            "spool_dir": self._programs.folder / "spool",
            "admin_port": 0,
            "log_format": "json",
            **settings,
        }
        return {f"NB_BRIDGE_{name.upper()}": str(value) for name, value in values.items()}

    @staticmethod
    def _listening(program: Program, event: str) -> dict[str, Any]:
        def line() -> list[dict[str, Any]]:
            assert program.process.poll() is None, f"{program.name} ended: {program.errors}"
            return logged(program, event)

        return wait_until_sync(line, f"{program.name} to listen", bound_s=_BOUND_S)[0]

    # --- traffic

    @property
    def callback_url(self) -> str:
        """Where the last ingress takes callbacks."""
        assert self._ingress is not None
        return str(logged(self._ingress, "ingress_listening")[0]["url"])

    def send(
        self, device: str, command: str, *, code: str = "SENT", error: str | None = None
    ) -> None:
        """One callback; with `error` the broken receiver fails, saying so."""
        self.post(body(device, command, code, error))

    def post(self, raw: bytes) -> None:
        """Any body, answered 200: what is no notification goes into quarantine."""
        request = urllib.request.Request(self.callback_url, data=raw)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200

    def dead(self) -> list[dict[str, Any]]:
        """The dead letters, as the command line lists them."""
        return self._listed("dead")

    def quarantined(self) -> list[dict[str, Any]]:
        """What is in quarantine, as the command line lists it."""
        return self._listed("quarantine")

    def has_dead(self, count: int) -> None:
        """Returns when there are as many dead letters."""
        wait_until_sync(
            lambda: len(self.dead()) == count, f"{count} dead letters", bound_s=_BOUND_S
        )

    def _listed(self, what: str) -> list[dict[str, Any]]:
        found = self.run(what, "list", "--json", "--limit", "0")
        # Before the first worker there is no group to ask for.
        return list(json.loads(found.output)[what]) if found.process.returncode == 0 else []
