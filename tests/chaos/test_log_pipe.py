"""A log reader that stops, and one that dies, are what a program then feels."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from log_pipe import LogPipe
from support.waiting import wait_until


@pytest.fixture
def stderr(tmp_path: Path) -> LogPipe:
    """Where this process's own stderr goes for a while: it is the program."""
    return LogPipe(tmp_path / "log")


async def test_what_is_written_comes_to_the_file(stderr: LogPipe, tmp_path: Path) -> None:
    os.write(stderr.fileno(), b"one\n")
    await wait_until(lambda: (tmp_path / "log").read_bytes() == b"one\n", "the line")
    stderr.close()
    stderr.end()


async def test_nothing_can_be_written_while_nobody_reads(stderr: LogPipe, tmp_path: Path) -> None:
    kept = os.dup(2)
    os.dup2(stderr.fileno(), 2)
    try:
        stderr.stop_reading(os.getpid())
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    os.set_blocking(stderr.fileno(), False)
    with pytest.raises(BlockingIOError):
        os.write(stderr.fileno(), b"x")
    stderr.read_on()
    os.set_blocking(stderr.fileno(), True)
    os.write(stderr.fileno(), b"last\n")
    await wait_until(lambda: (tmp_path / "log").read_bytes().endswith(b"last\n"), "the line")
    stderr.close()
    stderr.end()


def test_a_writer_is_told_that_the_reader_died(stderr: LogPipe) -> None:
    stderr.die()
    with pytest.raises(BrokenPipeError):
        os.write(stderr.fileno(), b"x")
    stderr.close()
    stderr.end()
