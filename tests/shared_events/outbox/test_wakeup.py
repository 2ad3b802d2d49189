"""Wake-ups make a relay immediate; without Redis its polls still come."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
import redis
from django.conf import settings

from shared_events.outbox.wakeup import WakeUp
from shared_events.runtime.stop import StopSignal
from tests.shared_events.probes import closed_port


@pytest.fixture
def name() -> Iterator[str]:
    own = f"test-{os.getpid()}-{time.monotonic_ns()}"
    yield own
    client = redis.Redis.from_url(settings.REDIS_URL)
    client.delete(f"notifyx:wake:{own}")
    client.close()


@pytest.fixture
def wake_up(name: str) -> Iterator[WakeUp]:
    made = WakeUp(settings.REDIS_URL, name)
    yield made
    made._client.close()


@pytest.fixture
def without_redis() -> WakeUp:
    return WakeUp(f"redis://127.0.0.1:{closed_port()}/0", "any")


def waited(wake_up: WakeUp, seconds: float, stop: StopSignal | None = None) -> float:
    began = time.monotonic()
    wake_up.wait(seconds, stop or StopSignal())
    return time.monotonic() - began


def test_a_ring_before_the_wait_is_not_lost(wake_up: WakeUp) -> None:
    wake_up.ring()
    assert waited(wake_up, 30) < 10


def test_a_ring_during_the_wait_ends_it(wake_up: WakeUp, name: str) -> None:
    other = WakeUp(settings.REDIS_URL, name)
    timer = threading.Timer(0.2, other.ring)
    timer.start()
    assert waited(wake_up, 30) < 10
    timer.join()
    other._client.close()


def test_a_hundred_rings_wake_once(wake_up: WakeUp) -> None:
    for _ in range(100):
        wake_up.ring()
    assert waited(wake_up, 30) < 10
    assert waited(wake_up, 0.2) >= 0.2


def test_each_name_has_its_own_bell(wake_up: WakeUp, name: str) -> None:
    other = WakeUp(settings.REDIS_URL, f"{name}-other")
    wake_up.ring()
    assert waited(other, 0.2) >= 0.2
    other._client.close()


def test_a_stop_ends_the_wait(wake_up: WakeUp) -> None:
    with StopSignal() as stop:
        timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        timer.start()
        assert waited(wake_up, 30, stop) < 10
        timer.join()


@pytest.mark.fault(24)
def test_without_redis_a_wait_lasts_as_long_as_the_poll(without_redis: WakeUp) -> None:
    assert 0.3 <= waited(without_redis, 0.3) < 5
    assert 0.3 <= waited(without_redis, 0.3) < 5


def test_without_redis_a_stop_ends_the_wait(without_redis: WakeUp) -> None:
    with StopSignal() as stop:
        timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        timer.start()
        assert waited(without_redis, 30, stop) < 10
        timer.join()


@pytest.mark.fault(24)
def test_without_redis_a_ring_never_raises_and_costs_nothing_the_second_time(without_redis: WakeUp) -> None:
    without_redis.ring()
    began = time.monotonic()
    for _ in range(1000):
        without_redis.ring()
    assert time.monotonic() - began < 1
    assert not without_redis._breaker.is_closed


def test_redis_that_is_back_rings_again(wake_up: WakeUp, name: str) -> None:
    wake_up._breaker.failure("was away", hold_seconds=0)
    wake_up.ring()
    assert wake_up._breaker.is_closed
    assert waited(wake_up, 30) < 10
