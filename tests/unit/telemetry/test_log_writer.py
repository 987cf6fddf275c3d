"""A log line never raises, and waits for nobody: what cannot be written is lost and counted."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TextIO

import pytest

from bridge.telemetry import log_writer, metrics
from bridge.telemetry.log_writer import LogWriter


def lost() -> float:
    return metrics.registry.get_sample_value("nb_bridge_log_lines_lost_total") or 0.0


class Pipe:
    def __init__(self, read: int, write: TextIO) -> None:
        self.reading_end = read
        self.writer = LogWriter(lambda: write)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream:
        yield Pipe(read, stream)
    with contextlib.suppress(OSError):
        os.close(read)


def test_lines_arrive_whole_and_at_once(pipe: Pipe) -> None:
    pipe.writer.write("ü" * 10_000 + "\n")
    assert os.read(pipe.reading_end, 100_000).decode() == "ü" * 10_000 + "\n"


def test_a_reader_that_died_costs_lines_and_nothing_else(pipe: Pipe) -> None:
    before, writer = lost(), pipe.writer
    os.close(pipe.reading_end)
    for _ in range(3):
        writer.write("line\n")
    assert lost() - before == 3


def test_a_reader_that_stopped_is_waited_for_once(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    poll = log_writer.select.poll

    class Counted:
        def __init__(self) -> None:
            self._poll = poll()
            self.register = self._poll.register

        def poll(self, wait_ms: float) -> object:
            found = self._poll.poll(0)
            if not found:
                waits.append(wait_ms)
            return found

    monkeypatch.setattr(log_writer.select, "poll", Counted)
    writer, before = pipe.writer, lost()
    for _ in range(100):
        writer.write("x" * 4000 + "\n")
    assert lost() - before > 50
    assert waits[0] > 0
    assert set(waits[1:]) == {0.0}
    os.read(pipe.reading_end, 1_000_000)
    before = lost()
    writer.write("read again\n")
    assert lost() == before
    assert os.read(pipe.reading_end, 1_000_000) == b"read again\n"


def test_no_stream_or_one_that_takes_nothing_is_no_reason_to_raise() -> None:
    before = lost()
    LogWriter(lambda: None).write("line\n")
    with open(os.devnull) as unwritable:
        LogWriter(lambda: unwritable).write("line\n")
    LogWriter(lambda: unwritable).write("line\n")  # closed
    assert lost() - before == 3


def test_a_stream_that_is_no_file_is_written_to() -> None:
    stream = io.StringIO()
    LogWriter(lambda: stream).write("line\n")
    assert stream.getvalue() == "line\n"


SAYS = """
import sys
from bridge.telemetry import logs
class Bad(Exception):
    def __str__(self): raise SystemExit(3)
class Worse:
    def __str__(self): raise ValueError
logs.configure(level="info", format=sys.argv[1])
log = logs.get("test")
log.info("surrogate", device_id="\\ud800")
log.info("long", count=2**70)
log.info("object", file=Worse())
try:
    raise Bad
except Bad:
    log.exception("failed")
"""


@pytest.mark.parametrize("format", ["json", "console"])
def test_whatever_a_line_has_in_it_is_no_reason_to_raise(format: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", SAYS, format],
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    for event in (b"surrogate", b"long", b"object", b"failed"):
        assert event in said.stderr
