"""What follows from a delivery's outcome: it is settled, tried again, parked, or given up.

Decides about one lane at a time and touches it exactly once per outcome. Feeds the circuit breaker:
every outcome comes by here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from bridge import clock
from bridge.contract.entries import DeadLetter, EntryId
from bridge.contract.ledger import Note
from bridge.telemetry import logs, metrics
from consumers.outcome import (
    Failed,
    Handled,
    Killed,
    Outcome,
    Rejected,
    Retry,
    is_a,
    line_of,
    text_of,
    traceback_of,
    type_of,
)
from consumers.worker.delivery.attempts import Attempts, Failure
from consumers.worker.delivery.charging import Charging
from consumers.worker.delivery.circuit_breaker import RETRY_S, CircuitBreaker
from consumers.worker.delivery.retry_policy import RetryPolicy
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import Lane
from consumers.worker.recording.given_up import FULL_WAIT_S
from consumers.worker.recording.parking import Parking
from consumers.worker.recording.settler import Settler

ERROR_CHARS: Final = 2000
TRACEBACK_CHARS: Final = 8000
MAX_TYPES_LOGGED: Final = 100
OUTCOMES: Final = ("handled", "retry", "abandoned", "ignored", "skipped")
"""That are counted here; the dead are when Redis has them (`recording.given_up`)."""


class Outcomes:
    """`record` after every call; `skip` and `bury` for what ends without one."""

    def __init__(
        self,
        lanes: Lanes,
        settler: Settler,
        parking: Parking,
        policy: RetryPolicy,
        breaker: CircuitBreaker,
        charging: Charging,
        *,
        group: str,
        on_circuit: Callable[[bool], None],
        on_first_success: Callable[[], None],
    ) -> None:
        self._lanes = lanes
        self._settler = settler
        self._history = settler.history
        self._parking = parking
        self._policy = policy
        self._breaker = breaker
        self._charging = charging
        self._on_circuit = on_circuit
        self._on_first_success = on_first_success
        self.total = 0
        """Deliveries that had an outcome, as of the last `publish_counts`."""
        self._group = group
        self._log = logs.get("deliveries").bind(group=group)
        gauges = metrics.circuit_open, metrics.brake_on  # the name of 0.1, for one release
        self._circuit_open = [gauge.labels(group) for gauge in gauges]
        self._counters = {
            outcome: metrics.deliveries.labels(group, outcome) for outcome in OUTCOMES
        }
        self._counts = dict.fromkeys(OUTCOMES, 0)
        self._logged_failing: set[str] = set()

    def record(self, lane: Lane, attempt: int, outcome: Outcome) -> str:
        """Does what follows from `outcome` for the head of `lane`; returns how it counts."""
        if isinstance(outcome, Handled):
            self._succeeded()
            self._done(lane, self._history.handled(lane.head, attempt))
            self._counts["handled"] += 1
            return "handled"
        if isinstance(outcome, Failed):
            return self._failed(lane, outcome)
        if isinstance(outcome, Rejected):
            self._succeeded()  # the handler knew what it did
            self.bury(lane, attempt, "rejected", error=outcome.error)
            return "dead"
        if isinstance(outcome, Killed):
            return self._killed(lane, attempt, outcome)
        if lane.partition.lost:
            self._lanes.finished(lane)
        else:  # we stop
            if lane.head.attempts.suspect:  # its attempt was written before it ran
                self._settler.retry(lane.partition, lane.head)
            self._lanes.put_back(lane)
        self.count("abandoned")
        return "abandoned"

    def count(self, outcome: str) -> None:
        """Counts an outcome; the metric gets it with the next `publish_counts`."""
        self._counts[outcome] += 1

    def publish_counts(self) -> None:
        """Adds the counts to the metrics: once per delivery would be expensive."""
        self._charging.note()
        for outcome, count in self._counts.items():
            if count:
                self.total += count
                self._counters[outcome].inc(count)
                self._counts[outcome] = 0

    def skip(self, lane: Lane) -> None:
        """The head of `lane` is done with, without a call."""
        is_ours = lane.head.entry.for_group in (None, self._group)
        self._done(lane, self._history.skipped(lane.head) if is_ours else None)

    def _done(self, lane: Lane, note: Note | None) -> None:
        if lane.is_parked:
            self._parking.handled(lane, note)
        else:
            self._settler.handled(lane.partition, lane.head, note)
        self._lanes.finished(lane)

    def bury(
        self,
        lane: Lane,
        attempts: int,
        reason: str,
        text: str = "",
        *,
        error: BaseException | None = None,
    ) -> None:
        """The head of `lane` is given up; its device goes on when that is recorded."""
        if error is not None:
            self._note_why(lane, error, clock.epoch_ms())
        letter = DeadLetter(
            reason=reason,
            attempts=attempts,
            error_type=type_of(error) if error is not None else "",
            error=(text if error is None else text_of(error))[:ERROR_CHARS],
            traceback="" if error is None else traceback_of(error)[-TRACEBACK_CHARS:],
            dead_at_ms=clock.epoch_ms(),
            entry_id=EntryId(lane.head.id),
        )
        self._bury(lane, letter)

    def bury_again(self, lane: Lane) -> None:
        """The head of `lane` was given up, and the dead stream was full: perhaps it has room now.

        Nothing is called for it. Where much waits, it waits in Redis: it may do so for long.
        """
        if not lane.is_parked and self._parking.wants(lane, FULL_WAIT_S):
            self._parking.park(lane, clock.boottime_s() + FULL_WAIT_S)
        else:
            self._bury(lane, self._settler.given_up.letter_of(lane))

    def bury_suspect(self, lane: Lane, text: str = "") -> None:
        """The head of `lane`, a suspect, has used up its attempts."""
        known = lane.head.attempts
        if known.stuck:
            reason, text = "stuck", text or "the handler did not return"
        else:
            reason, text = "max_attempts", text or "the worker died while it ran"
        self.bury(lane, known.count, reason, text)

    # --- inside

    def _killed(self, lane: Lane, attempt: int, outcome: Killed) -> str:
        """It stays a suspect. That its attempt counts is on record since before it ran."""
        known = replace(lane.head.attempts, count=attempt, suspect=True, stuck=outcome.is_stuck)
        failure = Failure.of("Killed", outcome.text, "")
        known = known.failed(failure, at_ms=clock.epoch_ms(), device=lane.device)
        lane.head.attempts = known
        if self._policy.is_exhausted(attempt):
            self.bury_suspect(lane, outcome.text)
            return "dead"
        self._settler.retry(lane.partition, lane.head)
        self._lanes.wait(lane, 0.0)
        self.count("retry")
        return "retry"

    def _bury(self, lane: Lane, letter: DeadLetter) -> None:
        """What becomes of it is logged when it is known (`recording.given_up`)."""
        self._lanes.close(lane)
        if lane.partition.lost:
            return
        if lane.is_parked:
            self._parking.dead(lane, letter)
        else:
            self._settler.dead(lane, letter)

    def _succeeded(self) -> None:
        if not self._charging.successes:
            self._on_first_success()
        self._charging.successes += 1
        if self._breaker.succeeded():
            self._log.info("circuit_closed")
            self._tell_circuit(0)
            self._on_circuit(False)

    def _failed(self, lane: Lane, outcome: Failed) -> str:
        # What a handler asks for says nothing about what it uses.
        if not is_a(outcome.error, Retry):
            self._note_failure(lane, outcome.error)
        known, is_charged = self._charging.after_failure(lane.head.attempts)
        error = outcome.error
        if is_charged and self._policy.is_exhausted(known.count):
            self.bury(lane, known.count, "max_attempts", error=error)
            return "dead"
        if outcome.after_s is not None or (is_charged and not self._breaker.is_open):
            wait_s = self._policy.wait_s(known.count, outcome.after_s)
        else:
            wait_s = self._uncharged_wait_s(known)
        self._tell_failed(lane, known.count, wait_s, error)
        lane.head.attempts = known
        self._note_why(lane, error, known.failed_ms)
        self._try_again(lane, wait_s)
        self.count("retry")
        return "retry"

    def _uncharged_wait_s(self, known: Attempts) -> float:
        """Soon, whatever the back-off: when the outage is over, nobody has to wait for it."""
        lasts_s = (known.failed_ms - known.first_failed_ms) / 1000
        most_s = RETRY_S if self._breaker.is_open else self._policy.backoff_base_s + lasts_s
        return random.uniform(0.5, 1) * min(RETRY_S, most_s)

    def _tell_circuit(self, is_open: int) -> None:
        for gauge in self._circuit_open:
            gauge.set(is_open)

    def _note_failure(self, lane: Lane, error: BaseException) -> None:
        if self._breaker.failed(lane.partition.number, lane.device, clock.boottime_s()):
            self._log.error("circuit_opened", error_type=type_of(error))
            self._tell_circuit(1)
            self._on_circuit(True)

    def _tell_failed(self, lane: Lane, attempt: int, wait_s: float, error: BaseException) -> None:
        error_type = type_of(error)
        self._log.debug(
            "delivery_failed",
            **lane.head.entry.log_fields,
            partition=lane.partition.number,
            attempt=attempt,
            wait_s=round(wait_s, 3),
            error_type=error_type,
        )
        # A fault in a handler is logged for its author; a `Retry` is what its handler wants.
        known = error_type in self._logged_failing or len(self._logged_failing) >= MAX_TYPES_LOGGED
        if not known and not is_a(error, Retry):
            self._logged_failing.add(error_type)
            self._log.warning(
                "handler_failing",
                **lane.head.entry.log_fields,
                partition=lane.partition.number,
                error_type=error_type,
                advice="logged once; --show-deliveries and NB_BRIDGE_LOG_LEVEL=debug show each",
            )

    def _note_why(self, lane: Lane, error: BaseException, at_ms: int) -> None:
        failure = Failure.of(type_of(error), text_of(error), line_of(error))
        head = lane.head
        head.attempts = head.attempts.failed(failure, at_ms=at_ms, device=lane.device)

    def _try_again(self, lane: Lane, wait_s: float) -> None:
        due_ms = clock.epoch_ms() + round(wait_s * 1000)
        lane.head.attempts = replace(lane.head.attempts, due_ms=due_ms)
        due_s = clock.boottime_s() + wait_s
        if self._parking.wants(lane, wait_s):
            self._parking.park(lane, due_s)
        else:
            self._settler.retry(lane.partition, lane.head)
            self._lanes.wait(lane, due_s)
