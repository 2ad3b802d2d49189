"""The circuit breaker as a state machine, by an injected clock."""

import threading

import pytest

from shared_events.runtime.breaker import CircuitBreaker
from tests.shared_events.probes import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("it", first_seconds=1, maximum_seconds=15, clock=clock)


def test_a_closed_circuit_lets_everybody_through(breaker: CircuitBreaker) -> None:
    assert breaker.is_closed
    assert [breaker.allow() for _ in range(3)] == [True] * 3
    assert breaker.seconds_until_probe == 0


def test_a_failure_opens_it_for_a_second(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.failure("gone")
    assert (breaker.is_closed, breaker.allow(), breaker.reason, breaker.seconds_until_probe) == (
        False,
        False,
        "gone",
        1,
    )
    clock.advance(0.99)
    assert not breaker.allow()


def test_one_probe_at_a_time_is_let_through(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.failure("gone")
    clock.advance(1)
    assert [breaker.allow() for _ in range(3)] == [True, False, False]
    assert not breaker.is_closed


def test_a_probe_that_succeeds_closes_it(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.failure("gone")
    clock.advance(1)
    breaker.allow()
    breaker.success()
    assert (breaker.is_closed, breaker.allow(), breaker.reason) == (True, True, "")


def test_the_wait_doubles_to_its_maximum(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.failure("gone")
    waits = []
    for _ in range(6):
        waits.append(breaker.seconds_until_probe)
        clock.advance(waits[-1])
        assert breaker.allow()
        breaker.failure("gone")
    assert waits == [1, 2, 4, 8, 15, 15]


def test_after_a_success_the_waits_begin_anew(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(4):
        breaker.failure("gone")
        clock.advance(breaker.seconds_until_probe)
        breaker.allow()
    breaker.success()
    breaker.failure("gone")
    assert breaker.seconds_until_probe == 1


def test_failures_of_those_on_the_way_change_nothing(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.failure("gone")
    clock.advance(0.5)
    for _ in range(8):
        breaker.failure("gone, too")
    assert (breaker.seconds_until_probe, breaker.reason) == (0.5, "gone")


def test_a_probe_that_nobody_reports_on_is_given_up(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.failure("gone")
    clock.advance(1)
    assert breaker.allow()
    clock.advance(14.9)
    assert not breaker.allow()
    clock.advance(0.1)
    assert breaker.allow()


def test_a_hold_lasts_exactly_so_long_each_time(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        breaker.failure("wrong password", hold_seconds=15)
        clock.advance(14.9)
        assert not breaker.allow()
        clock.advance(0.1)
        assert breaker.allow()


def test_a_hold_outweighs_a_shorter_wait(breaker: CircuitBreaker) -> None:
    breaker.failure("gone")
    breaker.failure("wrong password", hold_seconds=15)
    assert (breaker.seconds_until_probe, breaker.reason) == (15, "wrong password")


@pytest.mark.fault(48)
def test_of_many_threads_one_is_the_probe(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.failure("gone")
    clock.advance(1)
    barrier = threading.Barrier(8)
    allowed: list[bool] = []

    def ask() -> None:
        barrier.wait(10)
        allowed.append(breaker.allow())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(allowed) == [False] * 7 + [True]
