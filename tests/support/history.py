"""A receiver that writes down what it does, and a checker of what was written.

As a receiver it is given to workers by its path. What it does with a notification is said by the
notification itself, in `resultDetail`: `{"do": "sleep", "s": 1}`, or `{"do": "sleep", "until":
"gate"}` until the test opens that; see `_ACTIONS`. Every start and every end is one line in a file
of the process, written at once: what a kill leaves is true.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from consumers import (
    NotifyNBCommandStatusChangedDTO,
    PushMessageReceiver,
    Reject,
    Retry,
    delivery,
    request,
)

FOLDER_VARIABLE = "HISTORY_FOLDER"
SYNC = f"{__file__}:SyncReceiver"
ASYNC = f"{__file__}:AsyncReceiver"
TYPED = f"{__file__}:TypedReceiver"


def importing(name: str, as_name: str) -> str:
    """Python source that has one of these receivers under another name."""
    return f"import sys\nsys.path.append({str(Path(__file__).parents[1])!r})\n" + (
        f"from support.history import {name} as {as_name}\n"
    )


# --- gates ----------------------------------------------------------------------------------------


def open_gate(name: str, folder: Path) -> None:
    """Lets go on what waits for it; later arrivals pass."""
    (folder / f"{name}.gate").touch()


def _is_shut(gate: str | None) -> bool:
    return gate is not None and not Path(os.environ[FOLDER_VARIABLE], f"{gate}.gate").exists()


# --- writing --------------------------------------------------------------------------------------


class _Book:
    """One file per process, appended to without a buffer."""

    def __init__(self) -> None:
        path = Path(os.environ[FOLDER_VARIABLE]) / f"{os.getpid()}.history"
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, what: str, **more: Any) -> None:
        # One clock for all processes of the machine (CLOCK_MONOTONIC).
        line = {"at_ns": time.monotonic_ns(), "what": what, "pid": os.getpid(), **more}
        os.write(self._fd, json.dumps(line).encode() + b"\n")

    @contextmanager
    def delivery(self) -> Any:
        about = {
            "id": delivery.notification_id,
            "device": request.json["deviceId"],
            "epoch": delivery.epoch,
            "partition": delivery.partition,
            "attempt": delivery.attempt,
            "group": delivery.group,
            "late": delivery.late,
            "replayed": delivery.replayed,
        }
        self.write("start", **about)
        how = "handled"
        try:
            yield
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            self.write("end", **about, how=how, lost=delivery.lost)


def _fail(times: int = 10**9) -> None:
    if delivery.attempt <= times:
        raise ValueError(f"failed on purpose, attempt {delivery.attempt}")


def _retry(after_s: float, times: int = 1) -> None:
    if delivery.attempt <= times:
        raise Retry("not yet", after_s=after_s)


def _reject() -> None:
    raise Reject("no use")


def _block(s: float = 0.1, until: str | None = None) -> None:
    """Sleeps where it stands: in an async handler this blocks the event loop."""
    is_over = False
    while not is_over:
        time.sleep(s)
        is_over = not _is_shut(until)


def _exit(times: int = 10**9, code: int = 7) -> None:
    if delivery.attempt <= times:
        os._exit(code)


def _crash() -> None:
    ctypes.string_at(0)


_KEPT: list[Any] = []


def _pool(*, is_kept: bool = False) -> None:
    """Processes that are ended while they are busy, or that live on after the call."""
    pool = multiprocessing.get_context("fork").Pool(2)
    if is_kept:
        _KEPT.append(pool)
        return
    with pool:
        pool.apply_async(time.sleep, (60,))


def _block_until_lost() -> None:
    while not delivery.lost:
        time.sleep(0.02)


_ACTIONS: dict[str, Callable[..., None]] = {
    "fail": _fail,
    "retry": _retry,
    "reject": _reject,
    "block": _block,
    "block_until_lost": _block_until_lost,
    "exit": _exit,
    "crash": _crash,
    "pool": _pool,
}


def _told() -> dict[str, Any]:
    detail = request.json["result"].get("resultDetail")
    return dict(detail) if isinstance(detail, dict) else {}


def _act(told: dict[str, Any]) -> None:
    if "do" in told:
        _ACTIONS[told.pop("do")](**told)


class _Receiver(PushMessageReceiver):
    def setup(self) -> None:
        self.book = _Book()
        self.book.write("setup")

    def teardown(self) -> None:
        self.book.write("teardown")


class SyncReceiver(_Receiver):
    """The documented form, in a thread."""

    def handleNBCommandStateChanged(self) -> None:
        with self.book.delivery():
            told = _told()
            if str(told.get("do")).startswith("sleep"):
                told["do"] = told["do"].replace("sleep", "block")  # a thread's way to sleep
            _act(told)


async def _sleep(s: float = 0.02, until: str | None = None) -> None:
    await asyncio.sleep(s)
    while _is_shut(until):
        await asyncio.sleep(s)


async def _sleep_until_lost() -> None:
    while not delivery.lost:
        await asyncio.sleep(0.02)


async def _swallow(s: float = 0.1, until: str | None = None) -> None:
    """Ends in its own time, whoever cancels it."""
    ends_s = time.monotonic() + s
    while (left_s := ends_s - time.monotonic()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(left_s)
        if _is_shut(until):
            ends_s = time.monotonic() + s


_ASYNC_ACTIONS: dict[str, Callable[..., Awaitable[None]]] = {
    "sleep": _sleep,
    "sleep_until_lost": _sleep_until_lost,
    "swallow": _swallow,
}


class AsyncReceiver(_Receiver):
    """The documented form, in the event loop."""

    async def setup(self) -> None:
        await asyncio.sleep(0)
        super().setup()

    async def teardown(self) -> None:
        await asyncio.sleep(0)
        super().teardown()

    async def handleNBCommandStateChanged(self) -> None:
        with self.book.delivery():
            told = _told()
            if told.get("do") in _ASYNC_ACTIONS:
                await _ASYNC_ACTIONS[told.pop("do")](**told)
            else:
                _act(told)


class TypedReceiver(_Receiver):
    """With the notification as its argument."""

    async def handleNBCommandStateChanged(
        self, notification: NotifyNBCommandStatusChangedDTO
    ) -> None:
        with self.book.delivery():
            assert notification.deviceId == request.json["deviceId"]
            _act(dict(notification.result.resultDetail or {}))


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One delivery: when it began and ended, and how. A killed one has no end."""

    id: str
    device: str
    group: str
    epoch: int
    partition: int
    attempt: int
    pid: int
    late: bool
    replayed: bool
    started_ns: int
    ended_ns: int | None
    how: str | None
    lost: bool


class History:
    """Everything that was written in a folder, at this moment."""

    def __init__(self, folder: Path) -> None:
        lines = [line for file in folder.glob("*.history") for line in _lines(file)]
        self.events = sorted(lines, key=lambda line: line["at_ns"])
        self.runs = _runs(self.events)

    def pids(self) -> set[int]:
        """The processes that delivered something."""
        return {run.pid for run in self.runs}

    def of(self, device: str) -> list[Run]:
        """The deliveries of one device, in the order they began."""
        return [run for run in self.runs if run.device == device]

    def handled(self, group: str = "default") -> set[str]:
        """Ids whose delivery ended well at least once."""
        return {run.id for run in self.runs if run.how == "handled" and run.group == group}

    def count(self, what: str) -> int:
        """How many events of a kind: `setup`, `teardown`, `start`, `end`."""
        return sum(event["what"] == what for event in self.events)

    def check(self, published: dict[str, list[str]], *, given_up: Iterable[str] = ()) -> None:
        """Fails unless what was `published` (ids per device, in order) was delivered as promised.

        In one group: one delivery of a device at a time, in order, none skipped; back only under a
        higher epoch; everything handled at least once, but for what was `given_up`.
        """
        given_up = set(given_up)
        by_device: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs:
            by_device[run.device].append(run)
        last_ns = {event["pid"]: event["at_ns"] for event in sorted(self.events, key=_at_ns)}
        for device, ids in published.items():
            _check_no_overlap(device, by_device[device], last_ns, given_up)
            _check_order(device, by_device[device], ids, given_up)
        missing = {each for ids in published.values() for each in ids} - self.handled() - given_up
        assert not missing, f"{len(missing)} were never handled: {sorted(missing)[:5]}"


def _lines(file: Path) -> list[dict[str, Any]]:
    text = file.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _runs(events: list[dict[str, Any]]) -> list[Run]:
    open_: dict[tuple[int, str], dict[str, Any]] = {}
    found: list[tuple[dict[str, Any], dict[str, Any] | None]] = []
    for event in events:
        if event["what"] == "start":
            assert (event["pid"], event["id"]) not in open_, f"runs twice at once: {event}"
            open_[event["pid"], event["id"]] = event
        elif event["what"] == "end":
            found.append((open_.pop((event["pid"], event["id"])), event))
    found += [(start, None) for start in open_.values()]
    names = ("id", "device", "group", "epoch", "partition", "attempt", "pid", "late", "replayed")
    runs = [
        Run(
            **{name: start[name] for name in names},
            started_ns=start["at_ns"],
            ended_ns=end["at_ns"] if end else None,
            how=end["how"] if end else None,
            lost=bool(end and end["lost"]),
        )
        for start, end in found
    ]
    return sorted(runs, key=lambda run: run.started_ns)


def _check_no_overlap(
    device: str, runs: list[Run], last_ns: dict[int, int], given_up: set[str]
) -> None:
    for before, after in pairwise(runs):
        if before.ended_ns is None or before.ended_ns > after.started_ns:
            # Its sandbox was killed for it, and has given no sign since; or its worker was, or had
            # lost the lease: then the successor's epoch is higher.
            was_killed = (
                before.id in given_up
                and before.ended_ns is None
                and last_ns[before.pid] < after.started_ns
            )
            is_fenced = after.epoch > before.epoch
            assert is_fenced or was_killed, f"{device}: {after} began beside {before}"


def _at_ns(event: dict[str, Any]) -> int:
    return int(event["at_ns"])


def _check_order(device: str, runs: list[Run], ids: list[str], given_up: set[str]) -> None:
    position = {each: i for i, each in enumerate(ids)}
    at, epoch = -1, 0
    settled = set(given_up)
    for run in runs:
        here = position[run.id]
        assert run.epoch >= epoch, f"{device}: an old epoch began something: {run}"
        assert here >= at or run.epoch > epoch, f"{device}: went back under the same epoch: {run}"
        skipped = [each for each in ids[:here] if each not in settled]
        assert not skipped, f"{device}: {run} began before {skipped[0]} had its outcome"
        at, epoch = here, run.epoch
        if run.how == "handled":
            settled.add(run.id)
