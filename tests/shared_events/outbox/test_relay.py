"""The relay: what becomes of the rows that it claimed."""

from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from django.db import OperationalError, transaction
from django.db.models import F

from shared_events.contracts.events import new_id
from shared_events.contracts.topics import PUBLICATION_HEADER
from shared_events.kafka.producer import ACKNOWLEDGED, OutgoingRecord, Report
from shared_events.outbox.claim import claim_due, in_seconds
from shared_events.outbox.models import OutboxEvent
from shared_events.outbox.relay import ClaimedEvent, slices
from shared_events.runtime.database import is_passing
from tests.shared_events.kafka.conftest import mock_cluster
from tests.shared_events.probes import counted_sql

from .factories import AWAY, TOO_LARGE, Relaying, ScriptedProducer, ago, only, store

pytestmark = pytest.mark.django_db
Status = OutboxEvent.Status


def answers(**by_id: Report) -> ScriptedProducer:
    """Answers as told for records whose payload holds the id, acknowledges others."""

    def answer(record: OutgoingRecord) -> Report:
        for text, report in by_id.items():
            if text.encode() in record.value:
                return report
        return ACKNOWLEDGED

    return ScriptedProducer(answer)


def test_what_was_acknowledged_is_published() -> None:
    store(3)
    relaying = Relaying(ScriptedProducer())
    assert relaying.relay.run_once() == 3
    for event in OutboxEvent.objects.all():
        assert (event.status, event.due_at, event.lease_token, event.crashes) == (Status.PUBLISHED, None, 0, 0)
        assert event.published_at is not None
        assert event.claims == 1
    assert relaying.relay.run_once() == 0


def test_a_record_is_the_stored_event_under_its_notifications_id() -> None:
    store(aggregate_id=UUID("0198A7C0-ABCD-7000-8000-00000000000F"), topic="some-topic")
    producer = ScriptedProducer()
    Relaying(producer).relay.run_once()
    record = producer.published[0]
    assert (record.topic, record.key) == ("some-topic", b"0198a7c0-abcd-7000-8000-00000000000f")
    assert (record.value, record.headers) == (bytes(only().payload), [])


def test_a_key_of_its_own_wins_and_none_is_none() -> None:
    store(message_key=b"\xffsource", aggregate_id=None)
    store(message_key=None, aggregate_id=None)
    producer = ScriptedProducer()
    Relaying(producer).relay.run_once()
    assert {record.key for record in producer.published} == {b"\xffsource", None}


def test_what_is_published_again_says_so_in_a_header() -> None:
    store()
    producer = ScriptedProducer()
    Relaying(producer).relay.run_once()
    assert OutboxEvent.objects.all().publish_again() == 1
    Relaying(producer).relay.run_once()
    assert [record.headers for record in producer.published] == [[], [(PUBLICATION_HEADER, b"2")]]
    assert producer.published[0].value == producer.published[1].value


@pytest.mark.fault(17)
def test_relay_leaves_an_unacknowledged_event_due() -> None:
    event_id = store(due_at=ago(500), available_at=ago(500), retry_count=2)[0]
    Relaying(ScriptedProducer(lambda _record: AWAY)).relay.run_once()
    event = only()
    assert (event.pk, event.status, event.retry_count, event.crashes) == (event_id, Status.PENDING, 2, 0)
    assert (event.due_at, event.lease_token, event.published_at) == (event.available_at, 0, None)


def test_released_events_keep_their_order() -> None:
    ids = store(5)
    Relaying(ScriptedProducer(lambda _record: AWAY)).relay.run_once()
    store(2, due_at=ago(1), available_at=ago(1))
    rows = claim_due(OutboxEvent, ("id",), batch=5, lease_seconds=60, token=1)
    assert [row[0] for row in rows] == ids


def test_a_message_fault_counts_and_waits() -> None:
    store(retry_count=2)
    Relaying(ScriptedProducer(lambda _record: TOO_LARGE)).relay.run_once()
    event = only()
    assert (event.status, event.retry_count, event.crashes, event.last_error) == (Status.FAILED, 3, 0, "too large")
    waits = OutboxEvent.objects.filter(due_at__gte=in_seconds(4), due_at__lte=in_seconds(9))  # half to whole of 1 × 3²
    assert waits.exists()


def test_an_event_that_failed_is_published_when_it_is_due_again() -> None:
    store(status=Status.FAILED, retry_count=3, last_error="too large")
    Relaying(ScriptedProducer()).relay.run_once()
    assert (only().status, only().retry_count, only().last_error) == (Status.PUBLISHED, 3, "")


@pytest.mark.fault(19)
def test_one_events_fault_is_not_its_neighbours() -> None:
    bad, away, good = store(3)
    Relaying(answers(**{str(bad): TOO_LARGE, str(away): AWAY})).relay.run_once()
    states = dict(OutboxEvent.objects.values_list("pk", "status"))
    assert states == {bad: Status.FAILED, away: Status.PENDING, good: Status.PUBLISHED}


@pytest.mark.fault(19)
def test_the_last_attempt_makes_it_a_dead_letter_and_calls_the_hook() -> None:
    event_id = store(retry_count=9, status=Status.FAILED)[0]
    relaying = Relaying(ScriptedProducer(lambda _record: TOO_LARGE))
    relaying.relay.run_once()
    event = only()
    assert (event.status, event.retry_count, event.due_at, event.lease_token) == (Status.DEAD_LETTERED, 10, None, 0)
    assert relaying.given_up == [(event_id, "too large")]


@pytest.mark.django_db(transaction=True)
def test_the_hook_runs_in_the_settling_transaction() -> None:
    store(retry_count=9)
    relaying = Relaying(ScriptedProducer(lambda _record: TOO_LARGE), lease_seconds=0.2)

    def fails(_given_up: Any) -> None:
        assert transaction.get_connection().in_atomic_block
        raise OperationalError(2013, "Lost connection during query")

    relaying.relay._unpublishable = fails
    with pytest.raises(OperationalError):
        relaying.relay.run_once()
    assert (only().status, only().retry_count) == (Status.PENDING, 9)
    OutboxEvent.objects.update(due_at=ago(1))
    relaying.relay._unpublishable = relaying.given_up.extend
    relaying.relay.run_once()
    assert (only().status, len(relaying.given_up)) == (Status.DEAD_LETTERED, 1)


@pytest.mark.fault(13)
def test_a_row_claimed_twenty_times_without_an_outcome_is_poison_and_not_published() -> None:
    poison = store(crashes=20)[0]
    good = store(crashes=19)[0]
    producer = ScriptedProducer()
    relaying = Relaying(producer)
    while relaying.relay.run_once():
        pass
    states = dict(OutboxEvent.objects.values_list("pk", "status"))
    assert states == {poison: Status.DEAD_LETTERED, good: Status.PUBLISHED}
    assert len(producer.published) == 1
    assert relaying.given_up == [(poison, "claimed too often without an outcome")]


@pytest.mark.fault(13)
def test_a_row_that_ended_its_worker_twice_is_published_alone() -> None:
    suspects = store(2, crashes=2)
    store(3)
    producer = ScriptedProducer()
    relay = Relaying(producer).relay
    assert relay.run_once() == 1
    left = OutboxEvent.objects.filter(status=Status.PENDING)
    assert sorted(left.values_list("crashes", flat=True)) == [0, 0, 0, 2]  # as they were before the claim
    assert OutboxEvent.objects.get(status=Status.PUBLISHED).pk == suspects[0]
    assert [relay.run_once(), relay.run_once()] == [1, 3]


@pytest.mark.fault(9, 15)
def test_a_settlement_that_fails_in_passing_is_tried_again_and_nothing_is_published_twice() -> None:
    store(2)
    producer = ScriptedProducer()
    relay = Relaying(producer).relay
    settle, failures = relay._settle, iter([OperationalError(1213, "Deadlock found"), OperationalError(2006, "gone")])

    def fails_twice(*arguments: Any) -> None:
        for error in failures:
            raise error
        settle(*arguments)

    with patch.object(relay, "_settle", side_effect=fails_twice):
        assert relay.run_once() == 2
    assert set(OutboxEvent.objects.values_list("status", flat=True)) == {Status.PUBLISHED}
    assert len(producer.published) == 2


def test_large_events_are_published_in_slices_of_bounded_size() -> None:
    sizes = [5, 3, 3, 20, 1]
    events = [ClaimedEvent(new_id(), None, "t", None, 1, 0, 0, size) for size in sizes]
    assert [[event.payload_bytes for event in group] for group in slices(events, 8)] == [[5, 3], [3], [20], [1]]


class Steals(ScriptedProducer):
    """While it publishes, another relay claims some of the rows."""

    def __init__(self, ids: list[UUID]) -> None:
        super().__init__()
        self.ids = ids

    def publish(self, records: Any, *, give_up: Any) -> list[Report]:
        OutboxEvent.objects.filter(pk__in=self.ids).update(lease_token=99, due_at=in_seconds(60))
        return super().publish(records, give_up=give_up)


@pytest.mark.fault(20)
def test_a_lost_lease_is_counted_and_its_row_left(caplog: pytest.LogCaptureFixture) -> None:
    ids = store(3)
    Relaying(Steals(ids[:2])).relay.run_once()
    stolen = OutboxEvent.objects.filter(pk__in=ids[:2])
    assert [(event.status, event.lease_token) for event in stolen] == [(Status.PENDING, 99)] * 2
    assert OutboxEvent.objects.get(pk=ids[2]).status == Status.PUBLISHED
    lost = [record.msg for record in caplog.records if record.msg["event"] == "lease lost"]  # type: ignore[index]
    assert [fields["rows"] for fields in lost] == [2]  # type: ignore[index]


@pytest.mark.fault(15)
def test_a_database_that_goes_away_while_settling_leaves_the_rows_to_the_next_claim() -> None:
    store()
    relaying = Relaying(ScriptedProducer(), lease_seconds=0.3)
    away = OperationalError(2013, "Lost connection during query")
    with patch.object(relaying.relay, "_settle", side_effect=away), pytest.raises(OperationalError) as caught:
        relaying.relay.run_once()
    assert is_passing(caught.value)
    assert (only().status, only().crashes) == (Status.PENDING, 1)
    OutboxEvent.objects.update(due_at=ago(1))
    relaying.relay.run_once()
    assert (only().status, only().crashes, only().claims) == (Status.PUBLISHED, 0, 2)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("rows", [1, 400])
def test_a_batch_of_any_size_costs_four_statements_and_two_commits(rows: int) -> None:
    store(rows)
    relaying = Relaying(ScriptedProducer())
    with counted_sql() as sql:
        assert relaying.relay.run_once() == rows
    assert (len(sql.statements), sql.commits) == (4, 2)


@pytest.mark.django_db(transaction=True)
def test_a_batch_of_which_some_are_released_costs_five_statements() -> None:
    ids = store(100)
    relaying = Relaying(answers(**{str(event_id): AWAY for event_id in ids[:50]}))
    with counted_sql() as sql:
        relaying.relay.run_once()
    assert (len(sql.statements), sql.commits) == (5, 2)


def test_a_claimed_event_cannot_be_cancelled_and_an_unclaimed_one_is_never_published() -> None:
    claimed, cancelled = store()[0], store(due_at=in_seconds(60), available_at=ago(0))[0]
    Relaying(ScriptedProducer(lambda _record: AWAY)).relay.run_once()
    assert OutboxEvent.objects.filter(pk=claimed).cancel_unclaimed() == 0
    assert OutboxEvent.objects.filter(pk=cancelled).cancel_unclaimed() == 1
    OutboxEvent.objects.update(available_at=F("available_at"))
    producer = ScriptedProducer()
    Relaying(producer).relay.run_once()
    assert len(producer.published) == 1
    assert OutboxEvent.objects.get(pk=cancelled).status == Status.CANCELLED


def test_events_go_through_a_real_producer() -> None:
    with mock_cluster() as broker:
        topic = broker.new_topic()
        store(20, topic=topic)
        producer = broker.producer()
        assert Relaying(producer).relay.run_once() == 20
        producer.close()
        records = broker.records(topic, 20)
    stored = {str(event.aggregate_id).encode(): bytes(event.payload) for event in OutboxEvent.objects.all()}
    assert {record.key: record.value for record in records} == stored
    assert OutboxEvent.objects.filter(status=Status.PUBLISHED).count() == 20
