"""The outage that README.md shows: Redis is killed under traffic and comes back.

    make outage    # or: python tests/chaos/outage.py [--rate 200] [--seconds 15]

A third of the time each: before, without Redis, after. Everything is a process of its own, as in
production; each command is shown with what it prints. Exits with 1 if any callback was answered
other than 200, or any notification was not handled, or handled out of its device's order.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[1]))

from bridge.store.embedded import EmbeddedServer, die_with_parent
from support.ports import free_port

PROGRAM = (sys.executable, "-P", "-m", "bridge")
EVENT = re.compile(r"^\S+T(\S{8})\S*Z (.*?) *component=.*$")
HANDLED = re.compile(r"^device (\S+): command (\S+) is (\w+)", re.MULTILINE)


class Outage:
    """The programs, their folder, and the commands that are shown."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.server = EmbeddedServer(folder / "redis")
        self.server.start()
        self._port = free_port()
        self._environ = os.environ | {
            "NB_BRIDGE_REDIS_URL": self.server.url,
            "NB_BRIDGE_SPOOL_DIR": str(folder / "spool"),
            "NB_BRIDGE_HOST": "127.0.0.1",
            "NB_BRIDGE_PORT": str(self._port),
            "NB_BRIDGE_ADMIN_PORT": "0",
            "NB_BRIDGE_ALLOWED_NETWORKS": "127.0.0.0/8",
            "NB_BRIDGE_LOG_FORMAT": "console",
            "NO_COLOR": "1",
        }
        self._running: list[subprocess.Popen[bytes]] = []
        self._start("serve")
        self._start("worker", "--receiver", "consumers.examples.log:LogReceiver")
        wait_until(lambda: "leases_acquired" in self.text("worker.err"), "the worker to start")

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        out = (self._folder / f"{words[0]}.out").open("wb")
        err = (self._folder / f"{words[0]}.err").open("wb")
        with out, err:
            process = subprocess.Popen(
                [*PROGRAM, *words],
                env=self._environ, stdout=out, stderr=err, preexec_fn=die_with_parent(),
            )  # fmt: skip
        self._running.append(process)
        return process

    def text(self, name: str) -> str:
        """What a program wrote up to now."""
        return (self._folder / name).read_text()

    def log(self) -> list[str]:
        """The ingress's, without the line of its start."""
        return self.text("serve.err").splitlines()[1:]

    def send(self, *words: str) -> subprocess.Popen[bytes]:
        """`nb-bridge send` in the background, shown."""
        show(f"$ nb-bridge send {' '.join(words)} &")
        record = ("--record", str(self._folder / "sent.jsonl"))
        return self._start("send", "--url", f"http://127.0.0.1:{self._port}", *words, *record)

    def status(self) -> None:
        """`nb-bridge status`, shown with what it prints."""
        show("$ nb-bridge status")
        said = subprocess.run(
            [*PROGRAM, "status"],
            env=self._environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        show(said.stdout.decode().replace(str(self._folder), "/var/lib/nb-bridge"))

    def end(self) -> None:
        """Ends what runs, the sender of callbacks first."""
        for process in reversed(self._running):
            process.terminate()
        for process in self._running:
            process.wait(timeout=60)
        self.server.stop()

    def faults(self) -> list[str]:
        """What was promised and not kept; empty if all is well."""
        sent: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for line in self.text("sent.jsonl").splitlines():
            one = json.loads(line)
            if one["code"] != 200:
                return [f"a callback was answered {one['code'] or one['error']}"]
            body = json.loads(one["body"])
            sent[one["device"]].append((body["commandId"], body["result"]["resultCode"]))
        handled: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for device, *what in HANDLED.findall(self.text("worker.out")):
            handled[device].append(tuple(what))
        # What a worker had handled and could not record before Redis was gone comes again.
        first = {device: list(dict.fromkeys(each)) for device, each in handled.items()}
        counts = [sum(map(len, each.values())) for each in (sent, handled, first)]
        show(
            f"{counts[0]} answered 200, {counts[2]} handled in the order of their device, "
            f"{counts[1] - counts[2]} of them twice"
        )
        return [
            f"{device} is not as it was sent" for device in sent if sent[device] != first[device]
        ]


def show(text: str) -> None:
    """Prints what a terminal of 80 columns would show, without the air around tables."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    print("\n".join(lines), flush=True)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Looks again and again; fails after a minute."""
    deadline_s = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline_s:
            raise SystemExit(f"waited a minute for {what}")
        time.sleep(0.05)


def main() -> int:
    """Runs it; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=int, default=200, help="callbacks a second (default: 200)")
    parser.add_argument("--seconds", type=int, default=15, help="of traffic (default: 15)")
    options = parser.parse_args()
    count, third_s = options.rate * options.seconds, options.seconds / 3
    with tempfile.TemporaryDirectory() as folder:
        outage = Outage(Path(folder))
        try:
            sending = outage.send(*f"--devices 50 --rate {options.rate} --count {count}".split())
            time.sleep(third_s)
            show("$ kill -9 $REDIS_PID")
            outage.server.kill()
            time.sleep(third_s)
            outage.status()
            show("$ valkey-server valkey.conf &")
            outage.server.start()
            sending.wait()
            show("$ wait   # what send says at its end")
            show(outage.text("send.out"))
            wait_until(
                lambda: len(set(HANDLED.findall(outage.text("worker.out")))) == count, "the rest"
            )
            outage.status()
            show("# the ingress's log meanwhile: times and events")
            show("\n".join(EVENT.sub(r"\1 \2", line) for line in outage.log()))
            faults = outage.faults()
        finally:
            outage.end()
    show("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
