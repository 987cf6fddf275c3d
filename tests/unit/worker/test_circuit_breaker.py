"""The circuit opens when nothing succeeds over many devices, and closes with the first success."""

from __future__ import annotations

import pytest

from consumers.worker.delivery.circuit_breaker import (
    MANY_DEVICES,
    MANY_FAILURES,
    NO_SUCCESS_FOR_S,
    CircuitBreaker,
)


def fail(breaker: CircuitBreaker, times: int, devices: int, *, at_s: float) -> list[bool]:
    return [breaker.failed(0, f"d{n % devices}", at_s) for n in range(times)]


def put_on(breaker: CircuitBreaker) -> float:
    """Puts it on, at the moment that is returned."""
    fail(breaker, MANY_FAILURES, MANY_DEVICES, at_s=100.0)
    at_s = 100.0 + NO_SUCCESS_FOR_S
    assert breaker.failed(0, "d0", at_s)
    return at_s


def test_it_goes_on_once_when_nothing_succeeds_for_a_while() -> None:
    breaker = CircuitBreaker()
    at_s = put_on(breaker)
    assert breaker.is_open
    assert not any(fail(breaker, 100, MANY_DEVICES, at_s=at_s + 1))


@pytest.mark.parametrize(
    ("times", "devices", "for_s"),
    [
        (MANY_FAILURES - 2, MANY_DEVICES, NO_SUCCESS_FOR_S),
        (10 * MANY_FAILURES, MANY_DEVICES - 1, NO_SUCCESS_FOR_S),
        (10 * MANY_FAILURES, MANY_DEVICES, NO_SUCCESS_FOR_S / 2),
    ],
)
def test_few_failures_few_devices_or_a_short_time_are_no_outage(
    times: int, devices: int, for_s: float
) -> None:
    breaker = CircuitBreaker()
    fail(breaker, times, devices, at_s=100.0)
    assert not breaker.failed(0, "d0", 100.0 + for_s)
    assert not breaker.is_open


def test_a_success_lets_go_and_is_told_once() -> None:
    breaker = CircuitBreaker()
    put_on(breaker)
    assert breaker.succeeded()
    assert not breaker.is_open
    assert not breaker.succeeded()
    assert not any(fail(breaker, MANY_FAILURES - 1, MANY_DEVICES, at_s=10**6))


def test_while_it_is_on_each_partition_has_two_probes_a_second() -> None:
    breaker = CircuitBreaker()
    assert breaker.wait_s(0.0, 4) == 0.0
    at_s = put_on(breaker)
    started = 0
    for step in range(1000):
        started += breaker.wait_s(at_s + step / 1000, 4) == 0.0
    assert started == 8
    assert breaker.wait_s(at_s + 0.9999, 4) > 0.0
