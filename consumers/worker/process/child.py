"""Entry of the child process: `python -m consumers.worker.process.child`, started by `parent` only.

Loads the receiver, runs the worker, and ends when the parent is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any, Final

from bridge import settings
from bridge.errors import BridgeError
from bridge.settings import Settings
from bridge.telemetry import logs, metrics, standard_streams
from bridge.terminal import visible_line
from consumers.context import Delivery
from consumers.outcome import line_of, text_of, type_of
from consumers.worker.partitions.shared_state import SharedState
from consumers.worker.partitions.worker_id import WorkerId
from consumers.worker.process import event_loop, forks, loading, watchdog
from consumers.worker.process.composition import Worker
from consumers.worker.process.watchdog import Blocked

ORPHAN_SLACK_S: Final = 10.0
GC_THRESHOLD: Final = 20_000
SHOWN_CHARS: Final = 200  # of the text of an error


def main() -> int:
    """Runs one worker; returns the exit code of `bridge.errors`."""
    standard_streams.open_closed()
    standard_streams.write_lines()
    arguments = _arguments()
    current = settings.load()
    logs.configure(level=current.log_level, format=current.log_format)
    shared = SharedState(arguments.shared_fd, concurrency=current.concurrency)
    try:
        return _run(current, loading.load(current.receiver), shared, arguments)
    except BridgeError as error:
        shared.conclude(error.exit_code)
        with contextlib.suppress(OSError):  # nobody reads it: the exit code says it, too
            print(f"nb-bridge: {error}", file=sys.stderr)  # noqa: T201 - a command line's error
        return error.exit_code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m consumers.worker.process.child")
    parser.add_argument("--shared-fd", type=int, required=True)
    parser.add_argument("--life-fd", type=int, required=True)
    parser.add_argument("--admin-fds", required=True)
    parser.add_argument("--worker", required=True)
    parser.add_argument("--generation", type=int, required=True)
    parser.add_argument("--successor", action="store_true")
    parser.add_argument("--replacements", type=json.loads, required=True)
    parser.add_argument("--show-deliveries", action="store_true")
    return parser.parse_args()


def _run(
    current: Settings, receiver: Any, shared: SharedState, arguments: argparse.Namespace
) -> int:
    # Everything imported lives for ever; the collector need not look at it again and again. And
    # what deliveries leave behind is freed by reference counts: look for cycles less often.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    for reason, count in arguments.replacements.items():
        metrics.worker_replacements.labels(current.group, reason).inc(count)

    admin_sockets = [socket.socket(fileno=int(fd)) for fd in arguments.admin_fds.split(",")]

    async def serve() -> int:
        worker = Worker(
            current,
            receiver,
            shared,
            worker=WorkerId(arguments.worker, arguments.generation),
            admin_sockets=admin_sockets,
            is_successor=arguments.successor,
            observer=_show if arguments.show_deliveries else None,
            on_blocked=_show_blocked if arguments.show_deliveries else None,
        )
        forks.keep_apart(lambda: admin_sockets)  # inherited: there before anything listens
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, worker.stop)
        # A terminal's Ctrl-C, and its end, reach the whole process group; the parent passes on what
        # they mean.
        for number in (signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, lambda: None)
        watch = threading.Thread(
            target=_end_with_parent,
            args=(arguments.life_fd, loop, worker, current.grace_s + ORPHAN_SLACK_S),
            daemon=True,
            name="life",
        )
        watch.start()
        return await worker.run()

    return event_loop.run(serve)


def _end_with_parent(
    life_fd: int, loop: asyncio.AbstractEventLoop, worker: Worker, within_s: float
) -> None:
    """Waits for the parent's end of a pipe to close; stops the worker, cleanly if it can."""
    while os.read(life_fd, 1):
        pass
    try:
        loop.call_soon_threadsafe(worker.stop)
    except RuntimeError:
        return  # the loop is closed: we are ending anyway
    time.sleep(within_s)
    os._exit(1)


def _show(delivery: Delivery, outcome: str, took_s: float, error: BaseException | None) -> None:
    entry = delivery.entry
    attempt = f" attempt {delivery.attempt}" if delivery.attempt > 1 else ""
    late = " late" if entry.late else ""
    with contextlib.suppress(Exception):  # its reader has gone: no reason to stop working
        line = (
            f"{outcome:9} {entry.status or entry.type:12} device {entry.ordered_by} "
            f"command {entry.command}{late}{attempt} ({took_s * 1000:.1f} ms)"
            f"{_raised(error)}"
        )
        print(visible_line(line), flush=True)  # noqa: T201 - what --show-deliveries is for


def _show_blocked(blocked: Blocked) -> None:
    with contextlib.suppress(Exception):
        print(visible_line(watchdog.in_words(blocked)), flush=True)  # noqa: T201 - as above


def _raised(error: BaseException | None) -> str:
    """What the handler raised and where, on the same line; nothing if it returned."""
    if error is None:
        return ""
    where = line_of(error)
    where = where and f" ({where})"
    text = " ".join(text_of(error).split())[:SHOWN_CHARS]
    return f" {type_of(error)}{text and f': {text}'}{where}"


if __name__ == "__main__":
    code = main()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Not sys.exit: a handler's thread that never ends would keep the process from ending.
    os._exit(code)
