"""What the bridge promises, held against what is seen of it at any moment of a simulation.

A model that is simpler than the bridge: lists of what was published, run and recorded. It looks at
Redis only, never into a program.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bridge.contract import ledger
from bridge.contract.digests import ledger_field
from bridge.contract.entries import Entry, entry_order
from bridge.contract.keys import Keys
from bridge.contract.ledger import Became
from bridge.platform.statuses import CommandStatus
from bridge.store.link import Call
from consumers.worker.delivery.attempts import Attempts
from consumers.worker.recording import netstrings


@dataclass(eq=False, slots=True, kw_only=True)
class Run:
    """One delivery."""

    id: str
    device: str
    group: str
    epoch: int
    attempt: int
    how: str | None = None
    """How it ended; `None` while it runs, and for ever if its process was killed."""
    is_lost: bool = False
    """Whether its lease was lost before it ended: then its outcome counts for nothing."""


class Promises:
    """`done` hears of every request the server has done, `began` and `ended` of every delivery."""

    def __init__(self, look: Any, keys: Keys, *, partitions: int, max_attempts: int) -> None:
        self._look, self._keys = look, keys
        self._partitions = range(partitions)
        self._max_attempts = max_attempts
        self._last = [b"0-0"] * partitions
        self._ids: dict[tuple[int, bytes], str] = {}
        """Notification by partition and entry id."""
        self._of_device: dict[str, list[str]] = defaultdict(list)
        """Notifications in the order of the stream."""
        self._highest: dict[tuple[str, str], int] = defaultdict(int)
        self._marks: dict[tuple[str, str], set[bytes]] = defaultdict(set)
        self._too_early: dict[str, set[str]] = {}
        """What was trimmed before a group was registered: not promised to it."""
        self._runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
        self._handled: dict[str, set[str]] = defaultdict(set)
        self._settled: dict[tuple[str, str], int] = defaultdict(int)
        """How many of a device's notifications are known to be settled for a group."""
        self._announced: dict[tuple[str, str], set[int]] = defaultdict(set)
        """Attempts of suspects that were written down, as they are before they run."""
        self._broken: list[str] = []
        """Found where an exception would be taken for a handler's, or for Redis'."""

    # --- what is published

    @property
    def published(self) -> set[str]:
        """Notifications that came into a stream."""
        return set(self._ids.values())

    def done(self, calls: Sequence[Call]) -> None:
        """Looks at what may have changed, before anything else can."""
        is_publish = any(call.script and call.script.name == "publish" for call in calls)
        is_registration = any(call.args[0] == "SADD" for call in calls)
        if is_publish or is_registration:  # of others that this one came between, too
            self._look_at_streams()
        if is_registration:
            for group in self._groups() - set(self._too_early):
                kept = {self._ids[p, each] for p in self._partitions for each in self._stream(p)}
                self._too_early[group] = self.published - kept
        if any(call.script and call.script.name == "settle" for call in calls):
            self._look_at_records()

    def _look_at_streams(self) -> None:
        for partition in self._partitions:
            self._look_at_stream(partition)

    def _look_at_stream(self, partition: int) -> None:
        stream = self._keys.stream(partition)
        for entry_id, fields in self._look.xrange(stream, min=b"(" + self._last[partition]):
            self._last[partition] = entry_id
            entry = Entry.decode(fields)
            self._hold(entry.id not in self.published, f"{entry.id} was published twice")
            self._ids[partition, entry_id] = entry.id
            self._of_device[entry.device].append(entry.id)
            command, rank = (entry.device, entry.command), CommandStatus.of(entry.status).rank or 0
            is_late = 0 < rank < self._highest[command]
            self._hold(entry.late is is_late, f"late is {entry.late} of {entry}")
            self._highest[command] = max(rank, self._highest[command])
            self._marks[command].add(bytes.fromhex(entry.id)[:8])

    def _look_at_records(self) -> None:
        for group in self._too_early:
            for partition in self._partitions:
                records = self._look.hgetall(self._keys.retry(partition, group))
                for entry_id, raw in records.items():
                    record = Attempts.decode(raw) if entry_id != b"clean" else Attempts()
                    if record.suspect:
                        self._announced[group, self._ids[partition, entry_id]].add(record.count)

    # --- what is delivered

    def began(self, run: Run) -> None:
        """A delivery starts: may it?"""
        runs = self._runs[run.group, run.device]
        order = self._of_device[run.device]
        place = order.index(run.id)
        if runs:
            last = runs[-1]
            self._hold(run.epoch >= last.epoch, f"{run} under an older epoch than {last}")
            if run.epoch == last.epoch:
                self._hold(last.how is not None, f"{run} beside {last}")
                again = place == order.index(last.id) and last.how != "handled"
                self._hold(again or place > order.index(last.id), f"{run} went back from {last}")
        settled = self._settled[run.group, run.device]  # what is settled once stays so
        for earlier in order[settled:place]:
            is_settled = self._is_settled(run.group, earlier)
            self._hold(is_settled, f"{run} before {earlier}")
            if is_settled and order[settled] == earlier:
                settled += 1
        self._settled[run.group, run.device] = settled
        runs.append(run)

    def ended(self, run: Run, how: str, *, is_lost: bool) -> None:
        """It ended."""
        run.how, run.is_lost = how, is_lost
        if how == "handled" and not is_lost:
            self._handled[run.group].add(run.id)

    # --- what holds at any time

    def check(self) -> None:
        """Nothing is forgotten that has no outcome, and the ledger says what was published."""
        self._look_at_streams()
        assert not self._broken, self._broken[0]
        for group in self._too_early:
            kept, dead = self._kept(group), self._dead(group)
            for id_ in self.published - kept - dead - self._too_early[group]:
                assert self._was_handled(group, id_), f"{group} forgot {id_}"
            for id_ in dead:
                self._check_dead(group, id_)
            self._check_history(group, kept, dead)
        self._check_ledger()

    def left(self) -> list[str]:
        """What is not done with; nothing, when everything had the time it needs."""
        self._look_at_streams()
        left = [f"{group}: {id_}" for group in self._too_early for id_ in self._kept(group)]
        left += [f"in the stream: {id_!r}" for p in self._partitions for id_ in self._stream(p)]
        for group in self._too_early:
            for partition in self._partitions:
                records = self._look.hkeys(self._keys.retry(partition, group))
                left += [f"record {each!r}" for each in records if each != b"clean"]
        return left

    def leases(self) -> list[bytes]:
        """Who has a lease."""
        keys = [self._keys.lease(p, group) for p in self._partitions for group in self._too_early]
        return [holder for holder in self._look.mget(keys) if holder is not None]

    def check_order(self, device: str, submitted: list[str]) -> None:
        """One ingress was given `submitted`, in this order, and nobody else was."""
        came = [id_ for id_ in self._of_device[device] if id_ in submitted]
        assert came == [id_ for id_ in submitted if id_ in self.published], device

    def _check_dead(self, group: str, id_: str) -> None:
        runs = [run for (g, _), runs in self._runs.items() if g == group for run in runs]
        of_it = [run for run in runs if run.id == id_]
        given_up = any(run.how == "Reject" for run in of_it)
        # Who then loses the lease, or dies, does not run it: nobody can know.
        uncertain = self._announced[group, id_] - {run.attempt for run in of_it}
        attempts = len(of_it) + len(uncertain)
        assert given_up or attempts >= self._max_attempts, f"{id_} is dead after {of_it}"

    def _check_ledger(self) -> None:
        for (device, command), record in self._records().items():
            assert record.device == device
            digests = {mark.digest for mark in record.marks}
            known = self._highest[device, command], self._marks[device, command]
            assert (record.rank, digests) == known

    def _check_history(self, group: str, kept: set[str], dead: set[str]) -> None:
        """The ledger says of each notification what became of it, and of no other."""
        noted = {}
        for record in self._records().values():
            for mark in record.marks:
                found = mark.groups.get(ledger.group_digest(group))
                noted[mark.digest.hex()] = found and found.became
        for id_ in self.published:
            expected = Became.DEAD if id_ in dead else Became.HANDLED
            if id_ in kept or id_ in self._too_early[group]:
                assert noted[id_[:16]] is None, f"{id_} has an outcome in {group}"
            else:
                assert noted[id_[:16]] is expected, f"{id_}: {noted[id_[:16]]} in {group}"

    def _records(self) -> dict[tuple[str, str], ledger.Record]:
        """By device and command."""
        found = {}
        for device, command in self._marks:
            field = ledger_field(device, command)
            pages = [self._look.hget(self._keys.ledger(p)[0], field) for p in self._partitions]
            found[device, command] = ledger.read([page for page in pages if page is not None])
        return found

    # --- looking

    def _hold(self, is_kept: bool, what: str) -> None:
        if not is_kept:
            self._broken.append(what)

    def _is_settled(self, group: str, id_: str) -> bool:
        return (
            id_ in self._too_early[group]
            or self._was_handled(group, id_)
            or id_ in self._dead(group)
        )

    def _was_handled(self, group: str, id_: str) -> bool:
        return id_ in self._handled[group]

    def _groups(self) -> set[str]:
        return {group.decode() for group in self._look.smembers(self._keys.groups)}

    def _stream(self, partition: int) -> list[bytes]:
        return [entry_id for entry_id, _ in self._look.xrange(self._keys.stream(partition))]

    def _dead(self, group: str) -> set[str]:
        return {
            fields[b"id"].decode()
            for partition in self._partitions
            for _, fields in self._look.xrange(self._keys.dead(partition, group))
        }

    def _kept(self, group: str) -> set[str]:
        """What the group will still be given: pending, not delivered yet, or parked."""
        kept = set()
        for partition in self._partitions:
            stream = self._keys.stream(partition)
            info = {each["name"]: each for each in self._look.xinfo_groups(stream)}
            delivered = entry_order(info[group.encode()]["last-delivered-id"])
            found = self._look.xpending_range(stream, group, "-", "+", 10_000)
            pending = {each["message_id"] for each in found}
            kept |= {
                self._ids[partition, entry_id]
                for entry_id in self._stream(partition)
                if entry_id in pending or entry_order(entry_id) > delivered
            }
            kept |= {self._ids[partition, each] for each in self._parked(partition, group)}
        return kept

    def _parked(self, partition: int, group: str) -> list[bytes]:
        found = []
        for device in self._look.zrange(self._keys.parked(partition, group), 0, -1):
            list_ = self._keys.parked_device(partition, group, device.decode())
            found += [netstrings.decode(raw)[0] for raw in self._look.lrange(list_, 0, -1)]
        return found
