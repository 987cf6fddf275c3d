"""Rules about order per device, and about who may deliver."""

from __future__ import annotations

from collections.abc import Iterator

from case import NEVER, Case, Violation
from evidence import Delivery


def nothing_skipped(case: Case) -> Iterator[Violation]:
    """A delivery starts only when all before it in the stream have their outcome."""
    for group, device, places in _ordered_devices(case):
        order = list(places)
        outcomes = case.outcomes_ns(group, device)
        frontier = 0
        for delivery in case.of_device[group, device]:
            place = places.get(delivery.notification)
            if place is None:
                continue
            while frontier < len(order) and (
                outcomes.get(order[frontier], NEVER) <= delivery.started_ns
                or case.is_forgotten(group, order[frontier])
            ):
                frontier += 1
            if place > frontier:
                text = (
                    f"{delivery.notification} of {device} began in {group} (epoch "
                    f"{delivery.epoch}, {delivery.program}) before {order[frontier]} had an outcome"
                )
                yield Violation("nothing_skipped", text)


def _ordered_devices(case: Case) -> Iterator[tuple[str, str, dict[str, int]]]:
    """Per group and device, the place of each notification in the stream.

    Without those that are there twice because Redis forgot the first.
    """
    for group, device in case.of_device:
        once = [
            entry.notification
            for entry in case.streams[device]
            if len(case.appended[entry.notification]) == 1
        ]
        yield group, device, {notification: place for place, notification in enumerate(once)}


def one_at_a_time(case: Case) -> Iterator[Violation]:
    """No two deliveries of a device run at once.

    But one begun under a lease that was lost meanwhile may still run in its process, or have died
    with it, while the next owner goes on. And one may begin under a lease that the server gave away
    early, because its clock was set forward, while its holder cannot know.
    """
    for (group, device), deliveries in case.of_device.items():
        running: list[Delivery] = []
        for delivery in deliveries:
            running = [one for one in running if (one.ended_ns or NEVER) > delivery.started_ns]
            for one in running:
                is_of_lost_lease = (
                    one.pid != delivery.pid
                    and (one.epoch < delivery.epoch or _was_begun_again(case, one, delivery))
                    and case.explains(one.program, one.started_ns, delivery.started_ns)
                )
                is_under_lost_lease = (
                    one.pid != delivery.pid
                    and one.epoch > delivery.epoch
                    and case.was_given_away_early(one.started_ns, delivery.started_ns)
                )
                # It was ended in its sandbox, which a lease outlives; and has given no sign since.
                is_ended = (
                    one.end == "stuck"
                    and one.pid != delivery.pid
                    and case.last_sign_ns(one) < delivery.started_ns
                )
                if not (is_of_lost_lease or is_under_lost_lease or is_ended):
                    text = (
                        f"{delivery.notification} of {device} began in {group} while "
                        f"{one.notification} ran (epochs {one.epoch}, then {delivery.epoch}; "
                        f"{one.program}, then {delivery.program})"
                    )
                    yield Violation("one_at_a_time", text)
            running.append(delivery)


def no_rewind_in_an_epoch(case: Case) -> Iterator[Violation]:
    """One owner goes forwards: it repeats only what had no outcome, and nothing older."""
    for group, device, places in _ordered_devices(case):
        last: dict[int, Delivery] = {}
        for delivery in case.of_device[group, device]:
            before = last.get(delivery.epoch)
            last[delivery.epoch] = delivery
            place = places.get(delivery.notification)
            if before is None or place is None or before.notification not in places:
                continue
            is_back = place < places[before.notification]
            is_again = place == places[before.notification] and case.ended_ns(before) != NEVER
            if is_back or is_again:
                text = (
                    f"{delivery.notification} of {device} ran again in {group} in epoch "
                    f"{delivery.epoch} ({delivery.program}), after {before.notification}"
                )
                yield Violation("no_rewind_in_an_epoch", text)


def no_rewind_behind_the_record(case: Case) -> Iterator[Violation]:
    """Nobody who took the lease after an outcome was recorded delivers that notification again.

    But a group that lapsed in between begins anew with what is still kept; and what was recorded by
    a primary that was replaced may be lost with it.
    """
    for delivery in case.deliveries:
        key = delivery.group, delivery.partition, delivery.epoch
        acquired = case.acquired.get(key)
        if acquired is None:
            text = f"{delivery.notification} delivered under an epoch nobody took: {key}"
            yield Violation("no_rewind_behind_the_record", text)
            continue
        entries = case.appended[delivery.notification]
        if entries and all(
            any(
                recorded < acquired
                and not case.is_lost(recorded, acquired)
                and not case.lapses_between(delivery.group, recorded, acquired)
                for recorded in case.records_of(delivery.group, entry)
            )
            for _, entry in entries
        ):
            text = (
                f"{delivery.notification} of {delivery.device} delivered in {delivery.group} in "
                f"epoch {delivery.epoch}, taken after its outcome was recorded"
            )
            yield Violation("no_rewind_behind_the_record", text)


def one_owner(case: Case) -> Iterator[Violation]:
    """Nothing starts under an epoch once another one with a higher epoch has begun.

    But where the server gave the lease away early, because its clock was set forward, its holder
    cannot know until its own deadline. And a server that lost everything gives epochs by its clock,
    which may have been ahead before.
    """
    highest: dict[tuple[str, int], Delivery] = {}
    for delivery in case.deliveries:
        owner = highest.setdefault((delivery.group, delivery.partition), delivery)
        if owner.epoch < delivery.epoch or _was_begun_again(case, owner, delivery):
            highest[delivery.group, delivery.partition] = delivery
        elif owner.epoch > delivery.epoch and not case.was_given_away_early(
            owner.started_ns, delivery.started_ns
        ):
            text = (
                f"{delivery.notification} began in {delivery.program} under epoch "
                f"{delivery.epoch}, after {owner.program} had begun under {owner.epoch}"
            )
            yield Violation("one_owner", text)


def _was_begun_again(case: Case, owner: Delivery, delivery: Delivery) -> bool:
    """Whether Redis forgot the owner's epoch before it gave a lower one, its clock being back."""
    if len(case.clock) == 1 or owner.epoch <= delivery.epoch:
        return False
    forgotten, given = (
        case.acquired.get((one.group, one.partition, one.epoch), -1) for one in (owner, delivery)
    )
    return any(forgotten < emptied < given for emptied in case.emptied)
