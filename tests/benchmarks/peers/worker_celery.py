"""Celery on Redis. Its tasks are sync only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery

import measured

app = Celery("bench", broker=measured.URL)
app.conf.update(
    task_ignore_result=True,
    # "Optimizing": 64 or 128 for many short tasks.
    worker_prefetch_multiplier=64,
)


@app.task(name="handle")
def handle(body: dict[str, Any]) -> None:
    """One task."""
    measured.sync_job()


def work() -> None:
    """Threads: the pool of its that runs many tasks at once in one process.

    Prefork, its default, is a process for each; gevent would have to be patched into the handler.
    """
    os.chdir(Path(__file__).parent)
    options = ["--pool", "threads", "--concurrency", str(measured.CONCURRENCY)]
    # Talk between workers, of which there is one.
    options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    options += ["--loglevel", "WARNING"]
    os.execlp("celery", "celery", "--app", Path(__file__).stem, "worker", *options)


def fill() -> None:
    """One producer, kept open."""
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(measured.COUNT):
            handle.apply_async((measured.body(number),), producer=producer)


if __name__ == "__main__":
    measured.main(fill, work)
