"""The relay while its database refuses to write: it waits, says why, and loses and doubles nothing."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection

from shared_events.outbox.models import OutboxEvent
from shared_events.runtime.liveness import Liveness
from shared_events.runtime.loop import run_until_stopped
from shared_events.runtime.stop import StopSignal

from .factories import Relaying, ScriptedProducer, store

pytestmark = pytest.mark.django_db(transaction=True)
Status = OutboxEvent.Status
DISK_FULL = OperationalError(1021, "Disk full (/var/lib/mysql); waiting for someone to free some space")
TABLE_FULL = OperationalError(1114, "The table 'outbox_events' is full")
LOCK_WAIT = OperationalError(1205, "Lock wait timeout exceeded; try restarting transaction")
DEADLOCK = OperationalError(1213, "Deadlock found when trying to get lock; try restarting transaction")
FAILURES = ["disk full", "table full", "lock wait", "deadlock"]


@contextmanager
def refusing_writes(error: OperationalError, *, times: int) -> Iterator[list[str]]:
    """The next UPDATEs of the outbox fail with `error`."""
    refused: list[str] = []

    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("UPDATE") and len(refused) < times:
            refused.append(sql)
            raise error
        return execute(sql, params, many, context)

    with connection.execute_wrapper(refuse):
        yield refused


class NotedStop(StopSignal):
    """Calls `during` instead of waiting."""

    def __init__(self, during: Callable[[], None]) -> None:
        super().__init__()
        self.during = during
        self.waits = 0

    def wait(self, seconds: float, *, each_slice: Callable[[], None] = lambda: None) -> None:
        self.waits += 1
        self.during()


def run_until_published(relaying: Relaying, stop: NotedStop) -> None:
    def step() -> int:
        done = relaying.relay.run_once()
        stop.received = not OutboxEvent.objects.filter(due_at__isnull=False).exists()
        return done

    run_until_stopped(step, idle=lambda: None, stop=stop, liveness=Liveness(""))


@pytest.mark.fault(9, 64)
@pytest.mark.parametrize("error", [DISK_FULL, TABLE_FULL, LOCK_WAIT, DEADLOCK], ids=FAILURES)
def test_while_claims_cannot_be_written_nothing_is_published_and_all_is_when_they_can(
    error: OperationalError, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    store(3)
    producer = ScriptedProducer()
    handed_over_meanwhile: list[int] = []
    stop = NotedStop(lambda: handed_over_meanwhile.append(len(producer.published)))
    with refusing_writes(error, times=5) as refused:
        run_until_published(Relaying(producer), stop)
    assert (len(refused), stop.waits, handed_over_meanwhile) == (5, 5, [0] * 5)
    fields = ("status", "retry_count", "crashes", "claims", "lease_token")
    assert set(OutboxEvent.objects.values_list(*fields)) == {(Status.PUBLISHED, 0, 0, 1, 0)}
    assert len(producer.published) == 3
    causes = [record.msg["error"] for record in caplog.records]  # type: ignore[index]
    assert len(causes) == 5
    assert all(str(error.args[1]) in cause for cause in causes)


@pytest.mark.fault(9, 64)
@pytest.mark.parametrize("error", [DISK_FULL, TABLE_FULL, LOCK_WAIT, DEADLOCK], ids=FAILURES)
def test_what_is_published_and_cannot_be_settled_at_once_is_settled_later_and_not_published_again(
    error: OperationalError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared_events.outbox.relay.time.sleep", lambda _seconds: None)
    store(3)

    producer = ScriptedProducer()
    refused: list[str] = []

    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("UPDATE") and producer.published and len(refused) < 4:
            refused.append(sql)
            raise error
        return execute(sql, params, many, context)

    with connection.execute_wrapper(refuse):
        assert Relaying(producer).relay.run_once() == 3
    assert len(refused) == 4
    assert set(OutboxEvent.objects.values_list("status", "crashes", "claims")) == {(Status.PUBLISHED, 0, 1)}
    assert len(producer.published) == 3
