"""One run of one consumer: a fresh server, a backlog made by its own producer, one process.

The handler notes its first and its last call (`peers/measured.py`), so that starting is not
measured. CPU seconds are those of the process that runs the handlers, between the same two calls.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bridge.store.embedded import EmbeddedServer, die_with_parent
from usage import cpu_s, pss_mib

ROOT: Final = Path(__file__).parents[2]
PEERS: Final = Path(__file__).parent / "peers"
OURS: Final = Path(sys.executable)
NEWEST: Final = ROOT / ".bench" / "peers" / "bin" / "python"
OLDER: Final = ROOT / ".bench" / "arq" / "bin" / "python"

BOUND_S: Final = 120.0
FILL_BOUND_S: Final = 300.0
STOP_BOUND_S: Final = 10.0
LOOK_S: Final = 0.05
WATCH_S: Final = 0.25  # looking at memory takes CPU from what is measured
# Rewriting the file in the middle of a run would be measured too.
SERVER_ARGS: Final = ("--auto-aof-rewrite-percentage", "0")


class ConsumerError(Exception):
    """A consumer that failed, or did not come to its end in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """A file of `peers/`, and the Python that it runs in."""

    file: str
    python: Path = NEWEST

    def command(self, what: str) -> list[str]:
        """`what` is `fill` or `work`."""
        if not self.python.exists():
            raise ConsumerError(
                f"{self.python.relative_to(ROOT)} is missing: `make bench` makes it"
            )
        return [str(self.python), "-P", str(PEERS / f"worker_{self.file}.py"), what]

    def environ(
        self, server: EmbeddedServer, told: Path, values: Mapping[str, Any]
    ) -> dict[str, str]:
        """Told by variables: `count=5` is BENCH_COUNT."""
        ours = {f"BENCH_{name.upper()}": str(value) for name, value in values.items()}
        paths = [str(PEERS), str(ROOT)] if self.python == OURS else [str(PEERS)]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("NB_BRIDGE_")}
        return {
            **inherited,
            **ours,
            "BENCH_URL": server.url,
            "BENCH_TOLD": str(told),
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(paths),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was measured."""

    count: int
    took_s: float
    cpu_s: float
    server_cpu_s: float
    """Of Redis; unlike the others from the consumer's start, which costs it next to nothing."""
    pss_mib: float
    """The highest that was seen if memory was watched, else at the end."""
    told: Sequence[tuple[int, float]]
    """How many calls there were, how many seconds after the first: as it was told on the way."""

    def rate_between(self, first: int, last: int) -> float:
        """Messages a second from one call to another."""
        return (last - first) / (self._time_of(last) - self._time_of(first))

    def _time_of(self, call: int) -> float:
        """Between the two tellings around it as if all took the same time."""
        after = next(at for at, (count, _) in enumerate(self.told) if count >= call)
        (a, a_s), (b, b_s) = self.told[after - 1], self.told[after]
        return a_s + (b_s - a_s) * (call - a) / (b - a)

    @property
    def figures(self) -> dict[str, float]:
        """As rows want them."""
        return {
            "rate_per_s": (self.count - 1) / self.took_s,
            "cpu_us_per_message": self.cpu_s / (self.count - 1) * 1e6,
            "redis_us_per_message": self.server_cpu_s / self.count * 1e6,
            "pss_mib": self.pss_mib,
        }


@contextlib.contextmanager
def fresh_server() -> Iterator[EmbeddedServer]:
    """A server with nothing in it, that writes to disk every second, as all are measured with."""
    with tempfile.TemporaryDirectory(prefix="nb-bench-") as folder:
        server = EmbeddedServer(
            Path(folder) / "valkey", appendfsync="everysec", extra_args=SERVER_ARGS
        )
        server.start()
        try:
            yield server
        finally:
            server.kill()


def run(
    consumer: Consumer, *, watch_memory: bool = False, bound_s: float = BOUND_S, **values: Any
) -> Run:
    """Fills and consumes `count` messages; `ConsumerError` has the consumer's last words."""
    with fresh_server() as server, tempfile.TemporaryDirectory(prefix="nb-bench-") as folder:
        told, log = Path(folder) / "told", Path(folder) / "log"
        environ = consumer.environ(server, told, values)
        with log.open("ab") as out:
            filled = subprocess.run(
                consumer.command("fill"),
                env=environ, stdout=out, stderr=out, timeout=FILL_BOUND_S, check=False,
            )  # fmt: skip
            if filled.returncode:
                raise ConsumerError(f"it could not be filled: {_last_words(log)}")
            server_s = cpu_s(server.process.pid)
            process = subprocess.Popen(
                consumer.command("work"),
                env=environ, stdout=out, stderr=out, cwd=folder, start_new_session=True,
                preexec_fn=die_with_parent(),
            )  # fmt: skip
        try:
            told_on_the_way, peak = _watched(
                process, told, log, values["count"], watch_memory=watch_memory, bound_s=bound_s
            )
            server_s = cpu_s(server.process.pid) - server_s
        finally:
            end(process)
    found = told_on_the_way[-1]
    return Run(
        count=values["count"],
        took_s=found["took_s"],
        cpu_s=found["cpu_s"],
        server_cpu_s=server_s,
        pss_mib=peak,
        told=[(each["count"], each["took_s"]) for each in told_on_the_way],
    )


def _watched(
    process: subprocess.Popen[bytes],
    told: Path,
    log: Path,
    count: int,
    *,
    watch_memory: bool,
    bound_s: float,
) -> tuple[list[dict[str, Any]], float]:
    """Everything it told, the last one last; and the most memory that was seen."""
    give_up_s = time.monotonic() + bound_s
    peak = 0.0
    all_told: list[dict[str, Any]] = []
    while True:
        found = json.loads(told.read_text()) if told.exists() else {"count": 0}
        if found["count"] > (all_told[-1]["count"] if all_told else 0):
            all_told.append(found)
        if watch_memory or found["count"] >= count:
            peak = max(peak, pss_mib(process.pid))
        if found["count"] >= count:
            return all_told, peak
        if process.poll() is not None or time.monotonic() > give_up_s:
            why = "took too long" if process.poll() is None else f"exit {process.returncode}"
            raise ConsumerError(f"{why}, after {found['count']} of {count}: {_last_words(log)}")
        time.sleep(WATCH_S if watch_memory else LOOK_S)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then whatever is left of its session is killed."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_BOUND_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or "it said nothing"
