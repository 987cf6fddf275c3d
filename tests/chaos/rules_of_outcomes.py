"""Rules about what becomes of a notification: kept, handled or dead, and why more than once."""

from __future__ import annotations

import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from bridge.errors import RedisUnavailableError
from case import NEVER, Case, Violation
from consumers.worker.recording.settler import CALL_TIMEOUT_S
from evidence import Delivery, Disturbance

# A child that a handler killed shortly before or while its worker was asked to stop.
STOP_SLACK_NS: Final = 2_000_000_000


def kept(case: Case) -> Iterator[Violation]:
    """What was answered 200 reached a stream, byte for byte, and was handled or dead per group."""
    for notification, attempt in case.answered.items():
        what = f"{notification} of {attempt.device}, answered 200 by {attempt.to}"
        if not case.appended[notification]:
            yield Violation("kept", f"{what}, never came to Redis")
            continue
        for group in case.evidence.groups:
            if case.outcome(group, notification) is None:
                if not case.is_forgotten(group, notification):
                    yield Violation("kept", f"{what}, has no outcome in {group}")
            elif not case.of_notification[group, notification]:
                yield Violation("kept", f"{what}, was acknowledged in {group} and never delivered")


def handled_is_handled(case: Case) -> Iterator[Violation]:
    """Nothing is recorded as handled without a handler that returned, nothing dies undeserved."""
    fates = {n: attempts[0].fate for n, attempts in case.sent.items()}
    for notification, entries in case.appended.items():
        for group in case.evidence.groups:
            outcome = case.outcome(group, notification)
            ends = {one.end for one in case.of_notification[group, notification]}
            if outcome == "handled" and "handled" not in ends:
                text = f"{notification} recorded as handled in {group}, but deliveries ended {ends}"
                yield Violation("handled_is_handled", text)
            if outcome == "dead" and fates.get(notification) == "handled":
                text = f"{notification} of {entries[0][1].device} is dead in {group}, an innocent"
                yield Violation("handled_is_handled", text)


def only_what_was_sent(case: Case) -> Iterator[Violation]:
    """Streams and handlers see only what was sent, with the bytes that were sent."""
    for notification, entries in case.appended.items():
        bodies = {attempt.body for attempt in case.sent.get(notification, ())}
        for _, entry in entries:
            if not bodies:
                yield Violation("only_what_was_sent", f"{entry.entry} of nobody: {notification}")
            elif entry.body not in bodies:
                yield Violation("only_what_was_sent", f"{entry.entry} has another body than sent")
    for delivery in case.deliveries:
        bodies = {entry.body for _, entry in case.appended.get(delivery.notification, ())}
        if not bodies:
            text = f"{delivery.notification} delivered in {delivery.group}, but never in a stream"
            yield Violation("only_what_was_sent", text)
        elif delivery.body not in bodies:
            text = f"{delivery.notification} delivered in {delivery.group} with another body"
            yield Violation("only_what_was_sent", text)


def repeats(case: Case) -> Iterator[tuple[Delivery, Delivery, list[Disturbance]]]:
    """Each delivery of what had its outcome already, the one before it, and what explains it.

    What is in the stream twice (whether it may be is another rule's) has an outcome of each entry.
    """
    for (group, _), deliveries in case.of_device.items():
        done: dict[str, list[Delivery]] = defaultdict(list)
        for delivery in deliveries:
            before = done[delivery.notification]
            if before and case.begins_anew(before[-1], delivery):
                before.clear()
            if len(before) >= case.outcomes_of(group, delivery.notification) and (
                case.ended_ns(before[-1]) <= delivery.started_ns
            ):
                from_ns, to_ns = before[-1].started_ns, delivery.started_ns
                yield before[-1], delivery, case.explains(before[-1].program, from_ns, to_ns)
            if case.ended_ns(delivery) != NEVER:
                before.append(delivery)


def repeats_are_explained(case: Case) -> Iterator[Violation]:
    """Whatever ran again after its outcome did so because of a fault."""
    for before, delivery, causes in repeats(case):
        if not causes:
            text = (
                f"{delivery.notification} of {delivery.device} ran again in {delivery.group} "
                f"(epochs {before.epoch}, then {delivery.epoch}; {before.program}, then "
                f"{delivery.program}) and nothing explains it"
            )
            yield Violation("repeats_are_explained", text)


def interruptions_are_explained(case: Case) -> Iterator[Violation]:
    """A delivery without an end belongs to a process that was killed or told to kill itself."""
    died = {one.pid for one in case.deliveries if one.end == "died"}
    for delivery in case.deliveries:
        if (
            delivery.end is None
            and delivery.pid not in died
            and not case.explains(delivery.program, delivery.started_ns, NEVER)
        ):
            text = f"{delivery.notification} never ended in {delivery.program}"
            yield Violation("interruptions_are_explained", text)


def lapses_are_explained(case: Case) -> Iterator[Violation]:
    """A group lapses once each time that its workers leave, not when they are killed."""
    left = Counter(one.target for one in case.evidence.disturbances if one.kind == "group_leaves")
    for group, lapses in case.lapsed.items():
        if len(lapses) > left[group]:
            text = f"{group} lapsed {len(lapses)} times, and its workers left {left[group]} times"
            yield Violation("lapses_are_explained", text)


def attempts_are_bounded(case: Case) -> Iterator[Violation]:
    """No attempt is beyond the last one."""
    for delivery in case.deliveries:
        if not 1 <= delivery.attempt <= case.evidence.max_attempts:
            text = f"{delivery.notification} delivered as attempt {delivery.attempt}"
            yield Violation("attempts_are_bounded", text)


def stops_are_clean(case: Case) -> Iterator[Violation]:
    """Who was asked to stop did so in time, with exit code 0, unless a handler killed or held it.

    Or unless it had only just been started: then it may not have listened to signals yet. Nobody
    ends by itself. Asked or not, a worker that finds no Redis when it starts ends and says so.
    """
    no_redis = RedisUnavailableError.exit_code
    for one in case.evidence.exits:
        if one.asked_ns is None:
            if one.code != no_redis:
                yield Violation("stops_are_clean", f"{one.program} ended by itself: {one.code}")
            continue
        is_poisoned = any(
            delivery.program == one.program
            and delivery.end == "died"
            and one.asked_ns - STOP_SLACK_NS <= delivery.started_ns <= one.ended_ns
            for delivery in case.deliveries
        )
        # Its loop goes no further, and it is killed when its time is over, as it would have been.
        is_held = one.code == 1 and any(
            delivery.program == one.program
            and delivery.end == "stuck"
            and delivery.started_ns < one.asked_ns
            and case.last_sign_ns(delivery) < one.asked_ns + STOP_SLACK_NS
            for delivery in case.deliveries
        )
        if one.code not in (0, -signal.SIGTERM, no_redis) and not is_poisoned and not is_held:
            yield Violation("stops_are_clean", f"{one.program} ended with {one.code}")


def nothing_is_left(case: Case) -> Iterator[Violation]:
    """After a clean stop no lease is held, no file spooled, and no attempt noted of what is done.

    But a note that a worker sent, gave up waiting for and sent again may have arrived once more
    after the outcome: then it stays.
    """
    gave_up = any(
        disturbance.kind in ("strand", "black_hole", "freeze_redis")
        and disturbance.ended_ns - disturbance.began_ns >= CALL_TIMEOUT_S * 1e9
        for disturbance in case.evidence.disturbances
    )
    for one in case.evidence.leftovers:
        if one.kind != "attempt" or not gave_up:
            yield Violation("nothing_is_left", f"{one.kind} {one.text}")
