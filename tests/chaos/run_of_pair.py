"""One ingress, one server, and two faults that meet. Owns everything that it starts.

Which combinations there are is `pairs`', and what may come of one `combination`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import aiohttp
import redis.asyncio

from bridge.contract.keys import Keys
from bridge.store.embedded import EmbeddedServer
from combination import (
    PATIENCE_S,
    SLACK_S,
    Combination,
    Fault,
    Request,
    Result,
    Seen,
    judge_answers,
    judge_order,
    missing,
)
from lone_ingress import NAMESPACE, PARTITIONS, Ingress
from volume import Volume
from wire import Refusal, Wire

CALM_S: Final = 0.4
RECOVERY_S: Final = 30.0
DEVICES: Final = 4
PAUSE_S: Final = 0.04


class Run:
    """One run of a combination, in a folder of its own."""

    def __init__(self, combination: Combination, program: Path, folder: Path) -> None:
        self._combination, self._folder = combination, folder
        self._server = EmbeddedServer(folder / "redis")
        self._server.start()
        assert self._server.port is not None
        self._wire = Wire(self._server.port)
        self._seen = Seen()
        kinds = combination.kinds
        self._disk = Volume(folder / "disk", size="8m") if "disk_full" in kinds else None
        self._log = Volume(folder / "log-disk", size="1m") if "log_full" in kinds else None
        self._program = program
        self._sends = True
        self._lock = asyncio.Lock()  # whoever starts the ingress holds it

    async def __call__(self) -> Result:
        """Does it all."""
        try:
            await self._wire.start()
            self._ingress = Ingress(self._program, self._folder, self._wire.url, self._log)
            self._ingress.start()
            patience = aiohttp.ClientTimeout(total=PATIENCE_S + SLACK_S)
            async with aiohttp.ClientSession(timeout=patience) as self._session:
                violations = await self._go()
        finally:
            await self._end()
        seen = self._seen.requests
        return Result(
            number=self._combination.number,
            violations=violations,
            answers=dict(Counter(str(one.answer) for one in seen)),
            slowest_s=round(max((one.answered_s - one.sent_s for one in seen), default=0.0), 2),
        )

    async def _end(self) -> None:
        if hasattr(self, "_ingress"):
            self._ingress.end()
        await self._wire.stop()
        if self._server.process.poll() is None:
            self._server.process.send_signal(signal.SIGCONT)
        self._server.stop()
        for volume in (self._disk, self._log):
            if volume is not None:
                volume.unmount()

    async def _go(self) -> list[str]:
        if not await self._is_ready(within_s=RECOVERY_S):
            return ["never ready, before any fault"]
        others = [asyncio.create_task(it) for it in (self._supervise(), self._probe())]
        senders = [asyncio.create_task(self._send(f"d{n}")) for n in range(DEVICES)]
        await asyncio.sleep(CALM_S)
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in self._combination.faults:
                group.create_task(self._do(fault, began_s))
        await asyncio.sleep(CALM_S)
        self._sends = False
        violations = []
        _, hanging = await asyncio.wait(senders, timeout=RECOVERY_S)
        if hanging:
            violations.append(f"{len(hanging)} devices without a 200 after {RECOVERY_S:g} s")
        if not await self._is_ready(within_s=RECOVERY_S):
            violations.append("not ready after all faults were over")
        violations += await self._judge_kept()
        await _cancel([*others, *hanging])
        code = await self._ingress.terminate()
        if code != 0:
            violations.append(f"stopped with {code}")
        return [*judge_answers(self._seen), *violations]

    # --- what callers and probes do

    async def _send(self, device: str) -> None:
        """One notification after the other, each until it has its 200."""
        number = 0
        while self._sends:
            while await self._post(device, f"{device}-{number}") != 200:
                await asyncio.sleep(0.1)
            number += 1
            await asyncio.sleep(PAUSE_S)

    async def _post(self, device: str, command: str) -> int:
        result = {"resultCode": "SENT", "resultDetail": "x" * 500}
        body = json.dumps({"deviceId": device, "commandId": command, "result": result})
        url = f"http://127.0.0.1:{self._ingress.port}/v1.0.0/messageReceiver/cmd"
        sent_s, answer = time.monotonic(), 0
        try:
            async with self._session.post(url, data=body) as response:
                await response.read()
                answer = response.status
        except TimeoutError:
            answer = -1
        except aiohttp.ClientError:
            pass
        self._seen.requests.append(
            Request(
                device=device,
                command=command,
                sent_s=sent_s,
                answered_s=time.monotonic(),
                answer=answer,
            )
        )
        return answer

    async def _probe(self) -> None:
        while True:
            for page in ("livez", "readyz"):
                if await self._page(page):
                    self._seen.live_s.append(time.monotonic())
            await asyncio.sleep(0.3)

    async def _page(self, name: str) -> bool:
        url = f"http://127.0.0.1:{self._ingress.admin_port}/{name}"
        try:
            async with self._session.get(url, timeout=aiohttp.ClientTimeout(2)) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _is_ready(self, *, within_s: float) -> bool:
        deadline_s = time.monotonic() + within_s
        while time.monotonic() < deadline_s:
            if await self._page("readyz"):
                return True
            await asyncio.sleep(0.05)
        return False

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            async with self._lock:
                code = self._ingress.process.poll()
                if code is not None:
                    if not self._seen.is_full(time.monotonic(), time.monotonic()):
                        self._seen.ended.append(code)
                    self._ingress.start()

    # --- what is done

    async def _do(self, fault: Fault, began_s: float) -> None:
        await asyncio.sleep(began_s + fault.from_s - time.monotonic())
        doing: dict[str, Coroutine[Any, Any, None]] = {
            "disk_full": self._fill_disk(fault),
            "log_full": self._fill_log(fault),
            "log_dead": self._kill_log(),
            "log_stopped": self._stop_log(fault),
            "redis_killed": self._kill_redis(fault),
            "redis_frozen": self._freeze_redis(fault),
            "redis_refusing": self._refuse(fault),
            "kill_ingress": self._kill_ingress(),
        }
        chosen = doing.pop(fault.kind)
        for other in doing.values():
            other.close()
        await chosen

    async def _fill_disk(self, fault: Fault) -> None:
        assert self._disk is not None
        from_s = time.monotonic()
        at = len(self._seen.full_s)
        self._seen.full_s.append((from_s, float("inf")))
        self._disk.fill()
        await asyncio.sleep(fault.to_s - fault.from_s)
        self._disk.free()
        self._seen.full_s[at] = from_s, time.monotonic()

    async def _fill_log(self, fault: Fault) -> None:
        assert self._log is not None
        self._log.fill()
        # The last page of the log's own file has room, too.
        with (
            contextlib.suppress(OSError),
            (self._log.folder / "log").open("ab", buffering=0) as file,
        ):
            while file.write(b"\n"):
                pass
        await asyncio.sleep(fault.to_s - fault.from_s)
        self._log.free()

    async def _kill_log(self) -> None:
        assert self._ingress.pipe is not None
        self._ingress.pipe.die()

    async def _stop_log(self, fault: Fault) -> None:
        self._ingress.stop_log()
        await asyncio.sleep(fault.to_s - fault.from_s)
        self._ingress.read_log()

    async def _kill_redis(self, fault: Fault) -> None:
        self._server.kill()
        await asyncio.sleep(fault.to_s - fault.from_s)
        self._server.start()

    async def _freeze_redis(self, fault: Fault) -> None:
        frozen = self._server.process
        with contextlib.suppress(ProcessLookupError):
            frozen.send_signal(signal.SIGSTOP)
        await asyncio.sleep(fault.to_s - fault.from_s)
        with contextlib.suppress(ProcessLookupError):
            frozen.send_signal(signal.SIGCONT)

    async def _refuse(self, fault: Fault) -> None:
        self._wire.refusal = Refusal(self._combination.refusal, is_of_reads_too=False)
        await asyncio.sleep(fault.to_s - fault.from_s)
        self._wire.refusal = None

    async def _kill_ingress(self) -> None:
        async with self._lock:
            self._ingress.kill()
            await asyncio.sleep(0.2)
            self._ingress.start()

    # --- what came of it

    async def _judge_kept(self) -> list[str]:
        """Once everything that was promised is in Redis, or time is up."""
        promised: dict[str, list[str]] = defaultdict(list)
        for request in self._seen.requests:
            if request.answer == 200:
                promised[request.device].append(request.command)
        deadline_s = time.monotonic() + RECOVERY_S
        while True:
            published = await self._published()
            if not missing(promised, published) or time.monotonic() > deadline_s:
                return judge_order(promised, published)
            await asyncio.sleep(0.2)

    async def _published(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        async with redis.asyncio.Redis(port=self._server.port, protocol=2) as client:
            for partition in range(PARTITIONS):
                for _, fields in await client.xrange(Keys(namespace=NAMESPACE).stream(partition)):
                    found[fields[b"device"].decode()].append(fields[b"command"].decode())
        return found


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
