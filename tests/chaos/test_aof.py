"""What a real server wrote is read back in its order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

import aof
from bridge.contract.entries import EntryId
from bridge.contract.keys import Keys
from bridge.store.embedded import EmbeddedServer
from consumers.worker.recording import netstrings
from evidence import Acquired, Appended, ClockSet, Emptied, Lapsed, Recorded, Registered
from support.entries import entry

pytestmark = pytest.mark.real

KEYS = Keys(namespace="n")
GROUP = "g"


class Writer:
    """Writes as the two halves do, and knows where the server keeps it."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self.client = redis.Redis(port=server.port or 0, protocol=2)

    @property
    def folder(self) -> Path:
        return self.server.data_dir / "appendonlydir"

    def add(self, device: str) -> EntryId:
        fields = entry(device).encode()
        pairs = dict(zip(fields[::2], fields[1::2], strict=True))
        id_: EntryId = self.client.xadd(KEYS.stream(2), pairs)  # type: ignore[assignment,arg-type]
        return id_

    def make_pending(self) -> None:
        self.client.xgroup_create(KEYS.stream(2), GROUP, "0")
        self.client.xreadgroup(GROUP, "c", {KEYS.stream(2): ">"})

    def park(self, id_: bytes, *, before: bytes | None = None) -> bytes:
        message = netstrings.encode((id_, b"field", b"value"))
        parked = KEYS.parked_device(2, GROUP, "d:with a colon")
        with self.client.pipeline(transaction=True) as both:
            both.xack(KEYS.stream(2), GROUP, id_)
            if before is None:
                both.rpush(parked, message)
            else:
                both.linsert(parked, "BEFORE", before, message)
            both.execute()
        return message

    def read(self) -> list[object]:
        return list(aof.written([self.folder]))


@pytest.fixture
def writer(own_server: EmbeddedServer) -> Iterator[Writer]:
    it = Writer(own_server)
    yield it
    it.client.close()


def handled(entry_id: bytes) -> Recorded:
    return Recorded(group=GROUP, partition=2, entry=entry_id.decode(), outcome="handled")


def test_entries_leases_and_outcomes(writer: Writer) -> None:
    writer.client.sadd(KEYS.groups, GROUP)
    first, second = writer.add("d"), writer.add("e")
    writer.make_pending()
    writer.client.set(KEYS.lease(2, GROUP), "worker:77", px=10_000)
    writer.client.xack(KEYS.stream(2), GROUP, first)
    with writer.client.pipeline(transaction=True) as both:
        both.xack(KEYS.stream(2), GROUP, second)
        both.xadd(KEYS.dead(2, GROUP), {"dead_reason": "rejected", "dead_entry": second})
        both.execute()
    group, one, other, *rest = writer.read()
    assert group == Registered(group=GROUP)
    assert isinstance(one, Appended)
    assert isinstance(other, Appended)
    assert (one.entry, one.device, one.partition) == (first.decode(), "d", 2)
    assert (other.entry, other.device) == (second.decode(), "e")
    assert rest == [
        Acquired(group=GROUP, partition=2, epoch=77),
        handled(first),
        Recorded(group=GROUP, partition=2, entry=second.decode(), outcome="dead"),
    ]


def test_what_is_parked_has_its_outcome_when_it_leaves_the_list(writer: Writer) -> None:
    first, second = writer.add("d"), writer.add("d")
    writer.make_pending()
    message = writer.park(second)
    writer.park(first, before=message)
    parked = KEYS.parked_device(2, GROUP, "d:with a colon")
    assert [each for each in writer.read() if isinstance(each, Recorded)] == []
    writer.client.lpop(parked)
    with writer.client.pipeline(transaction=True) as both:
        both.xadd(KEYS.dead(2, GROUP), {"dead_reason": "rejected", "dead_entry": second})
        both.lpop(parked)
        both.execute()
    assert [each for each in writer.read() if isinstance(each, Recorded)] == [
        handled(first),
        Recorded(group=GROUP, partition=2, entry=second.decode(), outcome="dead"),
    ]


def test_a_group_that_lapses_and_comes_back(writer: Writer) -> None:
    for change in (writer.client.sadd, writer.client.sadd, writer.client.srem, writer.client.sadd):
        change(KEYS.groups, GROUP)
    assert writer.read() == [Registered(group=GROUP), Lapsed(group=GROUP), Registered(group=GROUP)]


def test_an_emptied_server(writer: Writer) -> None:
    writer.add("d")
    writer.client.flushall()
    writer.add("d")
    assert [type(each) for each in writer.read()] == [Appended, Emptied, Appended]


def test_a_server_started_again_without_its_file(writer: Writer, tmp_path: Path) -> None:
    writer.add("d")
    writer.server.kill()
    lost = writer.folder.rename(tmp_path / "lost")
    writer.server.start()
    writer.add("d")
    found = aof.written([lost, writer.folder])
    assert [type(each) for each in found] == [Appended, Emptied, Appended]


def test_a_file_cut_short_by_a_kill(writer: Writer) -> None:
    writer.add("d")
    writer.add("d")
    writer.server.kill()
    (file,) = writer.folder.glob("*.incr.aof")
    file.write_bytes(file.read_bytes()[:-10])
    assert len(writer.read()) == 1


def test_when_the_server_s_clock_was_set(writer: Writer) -> None:
    writer.client.set(aof.CLOCK, "-3600.0 0.0")
    writer.add("d")
    writer.client.set(aof.CLOCK, "-3600.0 -3600.0")
    first, entry, second = writer.read()
    assert (first, second) == (
        ClockSet(low_s=-3600, high_s=0), ClockSet(low_s=-3600, high_s=-3600)
    )  # fmt: skip
    assert isinstance(entry, Appended)
