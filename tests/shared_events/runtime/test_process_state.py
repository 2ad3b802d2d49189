"""A worker's circuits as its service shows them."""

import json
from datetime import UTC, datetime

import pytest
from django.db import OperationalError
from django.test import Client

from shared_events.runtime.breaker import CircuitBreaker
from shared_events.runtime.models import ProcessState
from shared_events.runtime.process_state import WRITE_EVERY_SECONDS, StateReport

pytestmark = pytest.mark.django_db


LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_an_open_circuit_is_written_at_once_with_its_reason(clock: Clock) -> None:
    breaker = CircuitBreaker("smtp", clock=clock)
    report = StateReport("retry_emails", [breaker], clock=clock)
    report.write()
    breaker.failure("535 authentication failed")
    report.write()
    written = ProcessState.objects.get().open_circuits
    assert [(circuit["name"], circuit["reason"]) for circuit in written] == [("smtp", "535 authentication failed")]
    breaker.success()
    report.write()
    assert ProcessState.objects.get().open_circuits == []


def test_a_row_is_renewed_every_ten_seconds_and_not_in_each_round(clock: Clock) -> None:
    report = StateReport("relay_outbox", [], clock=clock)
    report.write()
    ProcessState.objects.update(updated_at=LONG_AGO)
    report.write()
    assert ProcessState.objects.get().updated_at == LONG_AGO
    clock.now += WRITE_EVERY_SECONDS
    report.write()
    assert ProcessState.objects.get().updated_at > LONG_AGO


def test_a_database_that_is_away_is_asked_again_after_ten_seconds_and_never_stops_the_work(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = StateReport("relay_outbox", [], clock=clock)
    tries = []

    def fail(_found: object) -> None:
        tries.append(clock.now)
        raise OperationalError(2006, "Server has gone away")

    with monkeypatch.context() as patch:
        patch.setattr(report, "_store", fail)
        for _ in range(25):
            report.write()
            clock.now += 1
    assert tries == [1_000, 1_010, 1_020]
    clock.now += WRITE_EVERY_SECONDS
    report.write()
    assert ProcessState.objects.count() == 1


def test_an_orderly_end_removes_the_row(clock: Clock) -> None:
    report = StateReport("relay_outbox", [], clock=clock)
    report.write()
    report.end()
    assert not ProcessState.objects.exists()


def test_health_names_what_a_worker_has_paused(clock: Clock, client: Client) -> None:
    breaker = CircuitBreaker("smtp", clock=clock)
    breaker.failure("535 authentication failed")
    StateReport("retry_emails", [breaker], clock=clock).write()
    shown = json.loads(client.get("/health/ready").content)
    assert shown["status"] == "degraded"
    assert [(worker["command"], worker["name"], worker["reason"]) for worker in shown["workers"]] == [
        ("retry_emails", "smtp", "535 authentication failed")
    ]
