"""Leases and due times go by the database's clock, whatever the clock of the machine says."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.db.models import F

from shared_events.outbox.claim import claim_due, in_seconds
from shared_events.outbox.models import OutboxEvent

from .factories import Relaying, ScriptedProducer, sent_event, store

pytestmark = [pytest.mark.django_db, pytest.mark.fault(60)]
DAY = timedelta(days=1)


@pytest.fixture(params=[DAY, -DAY], ids=["a day ahead", "a day behind"])
def _wrong_clock(request: pytest.FixtureRequest) -> Iterator[None]:
    with time_machine.travel(datetime.now(UTC) + request.param, tick=True):
        yield


@pytest.mark.usefixtures("_wrong_clock")
def test_a_relay_with_a_wrong_clock_publishes_what_is_due_and_nothing_else() -> None:
    due, later = store(due_at=in_seconds(-60))[0], store(due_at=in_seconds(3600))[0]
    assert Relaying(ScriptedProducer()).relay.run_once() == 1
    assert OutboxEvent.objects.get(status=OutboxEvent.Status.PUBLISHED).pk == due
    assert OutboxEvent.objects.get(status=OutboxEvent.Status.PENDING).pk == later


@pytest.mark.usefixtures("_wrong_clock")
def test_a_relay_with_a_wrong_clock_leases_as_long_as_any_other_and_takes_no_lease_of_others() -> None:
    store(due_at=in_seconds(-60))
    claim_due(OutboxEvent, ("id",), batch=9, lease_seconds=60, token=7, claims=F("claims") + 1)
    assert OutboxEvent.objects.filter(due_at__gt=in_seconds(50), due_at__lte=in_seconds(60)).count() == 1
    assert Relaying(ScriptedProducer()).relay.run_once() == 0
    OutboxEvent.objects.update(due_at=in_seconds(-1))
    assert Relaying(ScriptedProducer()).relay.run_once() == 1


@pytest.mark.usefixtures("_wrong_clock")
def test_an_event_that_is_stored_by_a_machine_with_a_wrong_clock_is_due_at_once() -> None:
    OutboxEvent.objects.bulk_create([OutboxEvent.of(sent_event(), "notification-status-topic")])
    assert Relaying(ScriptedProducer()).relay.run_once() == 1
