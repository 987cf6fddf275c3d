"""Rules about the ingress: what it answers, and what it publishes in which order."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Final

from bridge.platform.statuses import CommandStatus
from case import Case, Violation
from evidence import Appended, Attempt, Emptied, RolledBack

# A process that was killed, stopped or frozen is felt a little before and after.
ANSWER_SLACK_NS: Final = 2_000_000_000


def published_once(case: Case) -> Iterator[Violation]:
    """A notification is in the streams once, unless Redis forgot what it had accepted.

    That it may also do when its clock rises by the dedupe window. And each ledger recognises what
    it accepted itself: what came to ingresses of two releases may be there twice.
    """
    for notification, entries in case.appended.items():
        if len(entries) <= len(case.ledgers_of(notification)):
            continue
        for (first, _), (second, entry) in pairwise(entries):
            if not case.may_be_unknown(first, second):
                text = f"{notification} of {entry.device} is in the stream again as {entry.entry}"
                yield Violation("published_once", text)


def published_in_order(case: Case) -> Iterator[Violation]:
    """What one ingress process was sent by a device is in the order it was sent in.

    Only where nobody else saw it: neither another ingress nor an earlier process of this one. And
    only of what Redis has kept: the rest may have come again.
    """
    per_sender: dict[tuple[str, str], list[list[Attempt]]] = defaultdict(list)
    for attempts in case.sent.values():
        if len({one.to for one in attempts}) == 1:
            per_sender[attempts[0].device, attempts[0].to].append(attempts)
    for (device, to), sequence in per_sender.items():
        sequence.sort(key=lambda attempts: attempts[0].sent_ns)
        promised: list[tuple[int, int]] = []  # answered at, place
        highest = -1
        for attempts in sequence:
            places = case.appended[attempts[0].notification]
            if not places or case.emptied or places[0][0] in case.rolled_back:
                continue
            while promised and promised[0][0] < attempts[0].sent_ns:
                highest = max(highest, promised.pop(0)[1])
            if places[0][0] < highest:
                text = f"{attempts[0].notification} of {device} overtook another one in {to}"
                yield Violation("published_in_order", text)
            answers = [attempt.answered_ns for attempt in attempts if attempt.answer == 200]
            if answers:
                promised.append((min(answers), places[0][0]))
                promised.sort()


class _Ranks:
    """The highest rank of each command that each ledger has accepted: for sure, and at most."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}

    def forget(self, command: tuple[str, str]) -> None:
        """Of this command nothing is known any more."""
        self._known.pop(command, None)

    def forget_all(self) -> None:
        """Of no command either."""
        self._known.clear()

    def accept(self, one: Appended, ledgers: Collection[str]) -> set[bool]:
        """What an entry may say of itself; one of `ledgers` judged it."""
        rank = CommandStatus.of(one.status).rank or 0
        of_command = self._known.setdefault((one.device, one.command), {})
        may_say: set[bool] = set()
        for ledger in ledgers:
            surely, at_most = of_command.get(ledger, (0, 0))
            may_say |= {0 < rank < surely, 0 < rank < at_most}
            surely = max(rank, surely) if len(ledgers) == 1 else surely
            of_command[ledger] = surely, max(rank, at_most)
        return may_say


def late_is_told(case: Case) -> Iterator[Violation]:
    """An entry is late if one of higher rank of its command was accepted before; so is told.

    When its clock rose by the dedupe window Redis may have forgotten the others, or not. A ledger
    knows what it accepted itself, and which one it was is not always known. A primary that replaced
    another knows what was replicated.
    """
    ranks = _Ranks()
    before: tuple[_Ranks, dict[tuple[str, str], int]] | None = None
    accepted: dict[tuple[str, str], int] = {}
    lates: dict[str, set[bool]] = defaultdict(set)
    for place, one in enumerate(case.evidence.written):
        if isinstance(one, Emptied):
            ranks.forget_all()
        if place in case.rolled_back and before is None:
            before = copy.deepcopy(ranks), dict(accepted)
        elif isinstance(one, RolledBack) and before is not None:
            (ranks, accepted), before = before, None
        if not isinstance(one, Appended):
            continue
        command = one.device, one.command
        if not one.late and case.may_be_unknown(accepted.get(command, place), place):
            ranks.forget(command)
        accepted[command] = place
        lates[one.notification].add(one.late)
        if one.late not in ranks.accept(one, case.ledgers_of(one.notification) or {""}):
            text = f"{one.entry} ({one.status} of {one.command}) says late={one.late}"
            yield Violation("late_is_told", text)
    for delivery in case.deliveries:
        if delivery.late not in lates.get(delivery.notification, {delivery.late}):
            text = f"{delivery.notification} delivered with late={delivery.late}"
            yield Violation("late_is_told", text)


def answers(case: Case) -> Iterator[Violation]:
    """Nothing but 200 is answered without a reason of the ingress's own.

    Connections may break when the ingress is killed, stopped (as when its log is to go to a full
    disk) or frozen; 503 needs a disk that fails or is full, or a spool that is.
    """
    breaks = {"kill_ingress", "term_ingress", "freeze_ingress", "foreign_lock", "log_full", "stall"}
    for attempt in case.evidence.attempts:
        if attempt.answer == 200:
            continue
        allowed = {"disk_error", "disk_full", "small_spool"} if attempt.answer == 503 else breaks
        if attempt.answer not in (0, 503) or not any(
            disturbance.kind in allowed
            and disturbance.target in (attempt.program, "*")
            and disturbance.began_ns <= attempt.answered_ns + ANSWER_SLACK_NS
            and disturbance.ended_ns + ANSWER_SLACK_NS >= attempt.sent_ns
            for disturbance in case.evidence.disturbances
        ):
            told = attempt.answer or attempt.error
            text = f"{attempt.to} answered {told} to {attempt.notification} at {attempt.sent_ns}"
            yield Violation("answers", text)
