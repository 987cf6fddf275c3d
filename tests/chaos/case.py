"""The evidence of a run, arranged as the rules ask for it, and what a violation is. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from bridge.store.hearsay import COUNTS_S
from evidence import (
    Acquired,
    Appended,
    Attempt,
    ClockSet,
    Delivery,
    Disturbance,
    Emptied,
    Evidence,
    Lapsed,
    Recorded,
    Registered,
    RolledBack,
)

NEVER: Final = float("inf")
# A lease that was not renewed in time may be found lost a little after the cause is gone.
AFTERMATH_NS: Final = 3_000_000_000
# "what the old primary takes until the links have left it": they ask each second.
LEAVING_NS: Final = 2_500_000_000
# "believed after ten seconds": where one that named the old primary is not heard.
INSISTING_NS: Final = LEAVING_NS + round(COUNTS_S * 1e9)
# How exactly the moment is known at which the server's clock was set.
CLOCK_SLACK_NS: Final = 500_000_000
# A receiver writes down the end of a handler before its worker, which may be busy, or has to come
# from a thread to its loop, knows of it.
NOTICED_NS: Final = 50_000_000
# None of these may make anything run twice: clean stops, and what the programs do not feel, or
# should not, as the wall clocks of their own machines.
REPEATS_NOTHING: Final = frozenset(
    ("term_worker", "replace_worker", "term_ingress", "kill_ingress", "freeze_ingress",
     "disk_error", "disk_full", "small_spool", "script_flush", "clock_ingress", "clock_worker",
     "foreign_lock", "log_dies", "log_stops", "log_full", "forget_scripts")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Violation:
    """One promise that was not kept. `rule` is the name of the rule that says so."""

    rule: str
    text: str


class Case:
    """The evidence, arranged as the rules ask for it."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.sent: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in sorted(evidence.attempts, key=lambda one: one.sent_ns):
            self.sent[attempt.notification].append(attempt)
        self.deliveries = sorted(evidence.deliveries, key=lambda one: one.started_ns)
        self.of_device: dict[tuple[str, str], list[Delivery]] = defaultdict(list)
        self.of_notification: dict[tuple[str, str], list[Delivery]] = defaultdict(list)
        self.of_process: dict[tuple[str, int], list[Delivery]] = defaultdict(list)
        for delivery in self.deliveries:
            self.of_process[delivery.group, delivery.pid].append(delivery)
            self.of_device[delivery.group, delivery.device].append(delivery)
            self.of_notification[delivery.group, delivery.notification].append(delivery)
        self._read_written()

    def _read_written(self) -> None:
        self.appended: dict[str, list[tuple[int, Appended]]] = defaultdict(list)
        self.streams: dict[str, list[Appended]] = defaultdict(list)
        self.recorded: dict[tuple[str, int, str], list[tuple[int, str]]] = defaultdict(list)
        self.rolled_back: dict[int, int] = {}
        """Where something was written that was lost, and where it was."""
        self.acquired: dict[tuple[str, int, int], int] = {}
        self.emptied: list[int] = []
        self.clock: list[tuple[int, ClockSet]] = [(-1, ClockSet(low_s=0, high_s=0))]
        self.registered: dict[str, list[int]] = defaultdict(list)
        self.lapsed: dict[str, list[int]] = defaultdict(list)
        for place, one in enumerate(self.evidence.written):
            match one:
                case Appended():
                    self.appended[one.notification].append((place, one))
                    self.streams[one.device].append(one)
                case Recorded():
                    key = one.group, one.partition, one.entry
                    self.recorded[key].append((place, one.outcome))
                case Acquired():
                    self.acquired[one.group, one.partition, one.epoch] = place
                case Registered():
                    self.registered[one.group].append(place)
                case Lapsed():
                    self.lapsed[one.group].append(place)
                case Emptied():
                    self.emptied.append(place)
                case RolledBack():
                    self.rolled_back |= dict.fromkeys(range(place - one.count, place), place)
                case ClockSet():
                    self.clock.append((place, one))

    @property
    def answered(self) -> dict[str, Attempt]:
        """The first 200 of each notification that got one."""
        return {
            notification: oks[0]
            for notification, attempts in self.sent.items()
            if (oks := [attempt for attempt in attempts if attempt.answer == 200])
        }

    def ledgers_of(self, notification: str) -> frozenset[str]:
        """The ledgers that may have judged it: of the processes that it was sent to."""
        return frozenset(
            ledger
            for attempt in self.sent.get(notification, ())
            for since_ns, ledger in self.evidence.ledgers.get(attempt.to, ((0, ""),))
            if since_ns <= attempt.answered_ns
        )

    def outcome(self, group: str, notification: str) -> str | None:
        """What was recorded last, of any entry of a notification."""
        found = [
            recorded
            for place, entry in self.appended[notification]
            if (recorded := self._record(group, entry, place)) is not None
        ]
        return max(found)[1] if found else None

    def outcomes_of(self, group: str, notification: str) -> int:
        """How many entries of a notification have an outcome; at least 1."""
        ends = [
            self.recorded_at(group, entry, place) for place, entry in self.appended[notification]
        ]
        return max(1, sum(end != NEVER for end in ends))

    def recorded_at(self, group: str, entry: Appended, place: int) -> float:
        """Where in Redis' history the outcome of the entry at a place stands."""
        found = self._record(group, entry, place)
        return NEVER if found is None else found[0]

    def records_of(self, group: str, entry: Appended) -> list[int]:
        """Every place where an outcome of an entry was recorded, also where that was lost."""
        return [place for place, _ in self.recorded[group, entry.partition, entry.entry]]

    def _record(self, group: str, entry: Appended, place: int) -> tuple[int, str] | None:
        """The first outcome of an entry that held for as long as the entry."""
        lost = self.rolled_back.get(place)
        return next(
            (
                one
                for one in self.recorded[group, entry.partition, entry.entry]
                if self.rolled_back.get(one[0]) == lost
            ),
            None,
        )

    def is_lost(self, place: int, at: float) -> bool:
        """Whether what was written at a place was not so any more at a later one."""
        return self.rolled_back.get(place, NEVER) < at

    def is_forgotten(self, group: str, notification: str) -> bool:
        """Whether the group lost it before its outcome was recorded, or was not there before.

        By a Redis that was emptied or replaced, or because the group lapsed.
        """
        # Of a device whose backlog was parked the beginning is kept, and what followed it is lost.
        ends = [*self.emptied, *self.lapsed[group]]
        return any(
            not self._is_registered(group, place)
            or any(
                place < end < self.recorded_at(group, entry, place)
                for end in (*ends, self.rolled_back.get(place, -1))
            )
            for place, entry in self.appended[notification]
        )

    def begins_anew(self, before: Delivery, delivery: Delivery) -> bool:
        """Whether the group lapsed between two deliveries: it has all again that is still kept."""
        acquired = [
            self.acquired.get((one.group, one.partition, one.epoch)) for one in (before, delivery)
        ]
        return None not in acquired and self.lapses_between(delivery.group, *acquired)

    def lapses_between(self, group: str, first: float, second: float) -> bool:
        """Whether a group was given up between two places in Redis' history."""
        return any(first < lapsed < second for lapsed in self.lapsed[group])

    def _is_registered(self, group: str, place: int) -> bool:
        ends = [*self.emptied, *self.lapsed[group]]
        since = max((end for end in ends if end < place), default=-1)
        return any(since < registered < place for registered in self.registered[group])

    def may_be_unknown(self, first: int, second: int) -> bool:
        """Whether the ledger may have forgotten at `second` what it was told at `first`.

        Redis lost everything in between, or its clock rose by the dedupe window or more: also when
        both were written while it was being set.
        """
        if self.is_lost(first, second):
            return True
        if any(first < emptied < second for emptied in self.emptied):
            return True
        then = [clock for place, clock in self.clock if place < first][-1]
        later = [then, *(clock for place, clock in self.clock if first < place < second)]
        rose_s = max(clock.high_s for clock in later) - then.low_s
        return rose_s >= self.evidence.dedupe_window_s

    def was_given_away_early(self, taken_ns: float, started_ns: float) -> bool:
        """Whether the lease of what started may have been taken without its holder's seeing it.

        When the server's clock is set forward, leases end there at once; their holders go on until
        they ask the server, or until their own deadline, at most a whole lease later. And while an
        old primary does not know that it was replaced, it renews and gives leases as the new one
        does, which never heard of those (docs/high-availability.md).
        """
        primaries_ns = {"fail_over": LEAVING_NS, "split": INSISTING_NS}
        if any(
            one.began_ns <= taken_ns and started_ns <= one.ended_ns + primaries_ns[one.kind]
            for one in self.evidence.disturbances
            if one.kind in primaries_ns
        ):
            return True
        ttl_ns = self.evidence.lease_ttl_s * 1e9
        steps_ns = [
            disturbance.began_ns if disturbance.by_s > 0 else disturbance.ended_ns
            for disturbance in self.evidence.disturbances
            if disturbance.kind == "clock_redis"
        ]
        return any(
            step_ns - CLOCK_SLACK_NS <= taken_ns and started_ns <= step_ns + ttl_ns + CLOCK_SLACK_NS
            for step_ns in steps_ns
        )

    def ended_ns(self, delivery: Delivery) -> float:
        """When a delivery ended with an outcome, as far as the handler says; `NEVER` if not."""
        if delivery.ended_ns is None:
            return NEVER
        if delivery.end in ("handled", "rejected"):
            return delivery.ended_ns
        is_last = delivery.attempt >= self.evidence.max_attempts and (
            self._is_charged(delivery) or self._is_death_lost(delivery)
        )
        return delivery.ended_ns if is_last and self._is_dead(delivery) else NEVER

    def last_sign_ns(self, delivery: Delivery) -> int:
        """When the process of a delivery last wrote anything down."""
        return max(
            one.ended_ns or one.started_ns for one in self.of_process[delivery.group, delivery.pid]
        )

    def _is_charged(self, delivery: Delivery) -> bool:
        """Whether a failure counted; if it did not, the same attempt comes again.

        It did not, if it came back although nothing had succeeded in its process since it failed
        before: then nothing says that the failure is the notification's fault. Of what succeeded at
        the last moment its worker may not have known, and what succeeded just after the failure
        before it may have known first.
        """
        deliveries = self.of_notification[delivery.group, delivery.notification]
        at = next(n for n, one in enumerate(deliveries) if one is delivery)
        if at == 0 or at == len(deliveries) - 1 or deliveries[at + 1].attempt != delivery.attempt:
            return True
        since_ns = (deliveries[at - 1].ended_ns or deliveries[at - 1].started_ns) + NOTICED_NS
        until_ns = (delivery.ended_ns or 0) - NOTICED_NS
        return any(
            one.end == "handled" and since_ns < (one.ended_ns or 0) < until_ns
            for one in self.of_process[delivery.group, delivery.pid]
        )

    def _is_death_lost(self, delivery: Delivery) -> bool:
        """Whether it was given up, and comes again because a failover has lost that.

        Then it comes to the next owner of the partition, or to the same under another epoch.
        """
        deliveries = self.of_notification[delivery.group, delivery.notification]
        at = next(n for n, one in enumerate(deliveries) if one is delivery)
        is_last_of_epoch = at + 1 < len(deliveries) and deliveries[at + 1].epoch != delivery.epoch
        return is_last_of_epoch and any(
            outcome == "dead" and place in self.rolled_back
            for _, entry in self.appended[delivery.notification]
            for place, outcome in self.recorded[delivery.group, entry.partition, entry.entry]
        )

    def _is_dead(self, delivery: Delivery) -> bool:
        return self.outcome(delivery.group, delivery.notification) == "dead"

    def outcomes_ns(self, group: str, device: str) -> dict[str, float]:
        """When each notification of a device first had its outcome in a group.

        One that killed its process at every attempt is dead when its last delivery began: nobody
        was there any more to write down its end.
        """
        found: dict[str, float] = {}
        last: dict[str, Delivery] = {}
        for delivery in self.of_device[group, device]:
            notification = delivery.notification
            found[notification] = min(found.get(notification, NEVER), self.ended_ns(delivery))
            last[notification] = delivery
        for notification, delivery in last.items():
            if found[notification] == NEVER and self._is_dead(delivery):
                found[notification] = delivery.ended_ns or delivery.started_ns
        return found

    def explains(self, program: str, from_ns: float, to_ns: float) -> list[Disturbance]:
        """What was done to `program`, or to all, that can have made something run twice."""
        return [
            disturbance
            for disturbance in self.evidence.disturbances
            if disturbance.kind not in REPEATS_NOTHING
            and not self._is_quick_move(disturbance)
            and disturbance.target in (program, "redis", "*")
            and disturbance.began_ns <= to_ns
            and disturbance.ended_ns + AFTERMATH_NS >= from_ns
        ]

    def _is_quick_move(self, disturbance: Disturbance) -> bool:
        """A slot that moves within a lease's time has nothing run twice."""
        lasted_s = (disturbance.ended_ns - disturbance.began_ns) / 1e9
        return disturbance.kind == "move_slots" and lasted_s < self.evidence.lease_ttl_s
