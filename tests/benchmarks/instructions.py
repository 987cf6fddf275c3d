"""Instructions of the hot paths, counted by callgrind: no machine's mood changes them.

A path is run twice as often in a second process; the difference is what the repetitions took.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from rows import Extent, Row, alternate

TIMES: Final = 2_000
BATCH: Final = 100
TIMEOUT_S: Final = 300
BODY: Final = (
    b'{"deviceId": "92d3f8da-200a-4143-8d0d-000000000007", '
    b'"commandId": "108a9c71462a48e00000000000000001", '
    b'"result": {"resultCode": "SUCCESSFUL", "resultDetail": {"light_state": 1}}}'
)


def sections(extent: Extent) -> dict[str, Callable[[], list[Row]]]:
    """One section, where valgrind is installed."""
    cases = {name: partial(_counted, name) for name in PATHS}
    return {"instructions": lambda: alternate("instructions", cases, rounds=1)}


def _counted(name: str) -> Mapping[str, float]:
    if shutil.which("valgrind") is None:
        raise RuntimeError("valgrind is not installed")
    once, twice = (_instructions(name, count) for count in (TIMES, 2 * TIMES))
    return {"instructions": (twice - once) / TIMES}


def _instructions(name: str, count: int) -> int:
    words = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable]
    ended = subprocess.run(
        [*words, __file__, name, str(count)],
        check=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    found = re.search(r"Collected : (\d+)", ended.stderr)
    assert found is not None, "callgrind told no count"
    return int(found[1])


def _accept(count: int) -> None:
    """A body becomes a notification: JSON, schema, digests."""
    from bridge.platform import recognition

    for _ in range(count):
        recognition.accept(BODY)


def _publish(count: int) -> None:
    """Notifications become the bytes of a batch."""
    from bridge.contract.keys import Keys
    from bridge.outbox.publisher import Publisher
    from bridge.outbox.records import Arrival
    from bridge.platform.forms.nb import accept_command_status
    from bridge.store.link import Call, Link, _pack

    class Packed(Link):
        """Answers as if all of a batch was published."""

        async def run(self, calls: Sequence[Call], *, timeout_s: float) -> list[object]:
            for call in calls:
                _pack(call.args)
            return [[b"--" + b"p" * BATCH] for _ in calls]

    publisher = Publisher(
        Packed(None), Keys(namespace="nbcmd"), partitions=16, dedupe_window_s=86400,
        ledger_max_records=65536, quarantine_max_entries=10,
    )  # fmt: skip
    batch = [Arrival(accept_command_status(BODY), 1_700_000_000_000)] * BATCH

    async def publish() -> None:
        for _ in range(count // BATCH):
            await publisher.publish(batch, timeout_s=1.0)

    asyncio.run(publish())


def _decode(count: int) -> None:
    """What Redis returns becomes an entry."""
    from bridge.contract.entries import Entry
    from bridge.platform.forms.nb import accept_command_status

    it = accept_command_status(BODY)
    entry = Entry(it.id, it.type, it.device, it.command, it.status, 1_700_000_000_000, it.body)
    words = entry.encode()
    fields = dict(zip(words[::2], words[1::2], strict=True))
    for _ in range(count):
        Entry.decode(fields)


PATHS: Final = {
    "a callback's body becomes a notification": _accept,
    "a notification becomes a part of a batch": _publish,
    "a stream entry becomes a delivery's entry": _decode,
}

if __name__ == "__main__":
    PATHS[sys.argv[1]](int(sys.argv[2]))
