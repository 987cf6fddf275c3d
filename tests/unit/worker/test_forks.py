"""What a forked process does not share with the worker, from its first instruction on."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

# A process of its own: hooks of forks stay for as long as a process lives.
WORKER = """
import asyncio, json, os, signal, sys, threading
from consumers.worker.process import forks

def early():  # the first that runs in a forked process: whoever ends it may be as fast
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))

async def main():
    loop = asyncio.get_running_loop()
    asked = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, asked.append, number)
    os.register_at_fork(after_in_child=early)
    forks.keep_apart(lambda: ())
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    await asyncio.sleep(0.05)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    print(json.dumps({
        "ended_by": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        "worker_asked": len(asked), "blocked": len(blocked),
    }))
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.05)
    assert asked == [signal.SIGTERM]

asyncio.run(main())
"""


def run(*arguments: str) -> dict[str, Any]:
    told = subprocess.run(
        [sys.executable, "-c", WORKER, *arguments],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(told.stdout)
    return found


@pytest.mark.parametrize(("name", "number"), [("SIGTERM", 15), ("SIGINT", 2), ("SIGHUP", 1)])
def test_a_signal_that_comes_at_once_ends_the_forked_process_and_asks_nothing_of_the_worker(
    name: str, number: int
) -> None:
    assert run(name) == {"ended_by": number, "worker_asked": 0, "blocked": 0}
