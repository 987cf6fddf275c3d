"""Ingress, worker and traffic on a Redis of several servers, and what became of the traffic."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import redis

from bridge.contract.keys import Keys
from bridge.platform.forms.nb import accept_command_status
from bridge.store.embedded import EmbeddedServer
from support import history
from support.history import History
from support.ingresses import body
from support.processes import Serve, environ_for
from support.programs import Programs
from support.sending import Platform
from support.waiting import wait_until

NAMESPACE = "ha"
PARTITIONS = 4
RATE = float(os.environ.get("TRAFFIC_PER_S", "200"))
"""Callbacks a second; a quiet machine takes 800 and more."""
DEVICES = 50


@dataclass
class Bridge:
    """One ingress and one worker as processes, told by what they print and write down."""

    url: str
    programs: Programs
    _ingresses: list[Serve] = field(default_factory=list)
    _looks: int = 0
    _is_disk_empty: bool = False

    @property
    def keys(self) -> Keys:
        """Of the namespace in use."""
        return Keys(namespace=NAMESPACE)

    def start(self) -> None:
        """Both halves; the ingress listens."""
        environ = environ_for(
            self.programs.folder, self.url, NAMESPACE,
            partitions=str(PARTITIONS), drain_delay_s="0", lease_ttl_s="2", admin_port="0",
            log_format="json",
        )  # fmt: skip
        self._environ = {**environ, history.FOLDER_VARIABLE: str(self.programs.folder)}
        self._ingresses.append(Serve(self._environ))
        self.worker = self.programs.start(
            "worker", "--receiver", history.ASYNC, name="worker", environ=self._environ
        )

    def stop(self) -> None:
        """Ends the ingress; the worker ends with the test."""
        for ingress in self._ingresses:
            ingress.kill()

    def signal_worker(self, number: signal.Signals) -> None:
        """To all its processes."""
        os.killpg(self.worker.process.pid, number)

    @property
    def ingress(self) -> Serve:
        """The one that runs."""
        return self._ingresses[-1]

    @property
    def history(self) -> History:
        """What the worker's receiver wrote down."""
        return History(self.programs.folder)

    async def status(self) -> Any:
        """What `nb-bridge status --json` says."""
        self._looks += 1
        name = f"status-{self._looks}"
        program = self.programs.start("status", "--json", name=name, environ=self._environ)
        await asyncio.to_thread(program.ends)
        return json.loads(program.output) if program.output else None

    @asynccontextmanager
    async def under_traffic(self) -> AsyncIterator[Platform]:
        """With callbacks before, meanwhile and after; then all that is left is handled."""
        async with Platform(self.ingress.url, devices=DEVICES, rate=RATE) as platform:
            await wait_until(lambda: platform.count > RATE, "traffic")
            await wait_until(lambda: self.history.handled(), "deliveries")
            yield platform
            seen = platform.count
            await wait_until(lambda: platform.count > seen + RATE, "traffic afterwards")
        await wait_until(self._is_idle, "everything to be handled", bound_s=60)

    async def _is_idle(self) -> bool:
        status = await self.status()
        if status is None or status["redis"]["error"] or not status["groups"]:
            return False
        (group,) = status["groups"]
        # Redis is looked at before the disk: what leaves that in between is in neither count.
        was_empty, self._is_disk_empty = self._is_disk_empty, not status["spool"]["entries"]
        return was_empty and not group["unowned"] and not group["unhandled"]


def promised(platform: Platform) -> dict[str, list[str]]:
    """Per device the ids of what was answered 200, in order."""
    return {
        device: [str(accept_command_status(body(device, *each)).id) for each in sent]
        for device, sent in platform.promised.items()
    }


def lost(bridge: Bridge, platform: Platform) -> set[str]:
    """What was answered 200 and never handled; everything else came in its order."""
    ids = promised(platform)
    missing = {each for sent in ids.values() for each in sent} - bridge.history.handled()
    bridge.history.check(ids, given_up=missing)
    return missing


def repeats(bridge: Bridge) -> int:
    """Deliveries of what had been handled before."""
    runs = [run.id for run in bridge.history.runs if run.how == "handled"]
    return len(runs) - len(set(runs))


def on_disk(server: EmbeddedServer, keys: Keys) -> set[str]:
    """The ids of the entries that a server that was killed had: it is started alone to be asked."""
    alone = EmbeddedServer(server.data_dir)
    alone.start()
    try:
        with redis.Redis(port=alone.port or 0, protocol=2) as client:
            streams = [client.xrange(keys.stream(p)) for p in range(PARTITIONS)]
        return {fields[b"id"].decode() for stream in streams for _, fields in stream}
    finally:
        alone.kill()


async def beside(action: Callable[..., None], *arguments: Any) -> None:
    """Does what blocks, while traffic goes on."""
    await asyncio.to_thread(action, *arguments)


def figures(what: str, bridge: Bridge, platform: Platform, missing: Iterable[str] = ()) -> None:
    """One line to read with `pytest -s`."""
    print(
        f"\n{what}: {platform.count} answered 200, {dict(platform.answers)}, slowest "
        f"{platform.slowest_s:.3f} s, lost {len(set(missing))}, repeated {repeats(bridge)}"
    )
