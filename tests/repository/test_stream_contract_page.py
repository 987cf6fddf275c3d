"""docs/stream-contract.md names every key and field that the code has, and its example is real."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bridge.contract.digests import NotificationId
from bridge.contract.entries import DeadLetter, Entry, EntryId
from bridge.contract.keys import Keys
from bridge.contract.meta import Meta

TEXT = (Path(__file__).parents[2] / "docs" / "stream-contract.md").read_text()
KEYS = Keys(namespace="<ns>")


def key_names() -> list[str]:
    names = [KEYS.meta, KEYS.groups, KEYS.retired, KEYS.quarantine, KEYS.ingresses]
    names += [KEYS.quarantine_dropped, KEYS.audit]
    names += [
        KEYS.workers("<group>"),
        KEYS.worker_version("<group>", "<worker>"),
        KEYS.stream(0),
        KEYS.ledger(0)[0],
        KEYS.platform_ledger(0)[0],
    ]
    for of_group in (KEYS.lease, KEYS.ttl, KEYS.epoch, KEYS.retry, KEYS.parked, KEYS.dead):
        names.append(of_group(0, "<group>"))
    names.append(KEYS.parked_device(0, "<group>", "<device>"))
    return [name.replace("{<ns>:00}", "{<ns>:pp}") for name in names]


@pytest.mark.parametrize("name", key_names())
def test_the_table_has_the_key(name: str) -> None:
    assert re.search(rf"^\| `{re.escape(name)}`", TEXT, re.MULTILINE)


def test_the_tables_have_every_field() -> None:
    entry = Entry(
        id=NotificationId("0" * 32), type="t", device="d", command="c", status="s",
        received_at_ms=1, body=b"", late=True, for_group="g", replayed=True, traceparent="x",
    )  # fmt: skip
    letter = DeadLetter(
        reason="r", attempts=1, error_type="", error="", traceback="", dead_at_ms=1,
        entry_id=EntryId(b"1-0"),
    )  # fmt: skip
    for field in [*entry.encode()[::2], *letter.encode()[::2]]:
        assert f"`{field.decode()}`" in TEXT


def test_the_meta_value_shown_is_what_is_written() -> None:
    (shown,) = re.findall(r"```json\n(.*?)\n```", TEXT)
    assert Meta(partitions=16).encode().decode() == shown
    assert json.loads(shown)["partitions"] == 16
