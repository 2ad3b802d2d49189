"""A day without Kafka, with the clock moved: the relay's own code, probe by probe, and what the day has cost at its end."""

from datetime import timedelta
from uuid import UUID

import pytest
from django.db.models import F

from shared_events.dead_letters.models import DeadLetter
from shared_events.kafka.producer import ACKNOWLEDGED, OutgoingRecord, Report
from shared_events.outbox.models import OutboxEvent

from .factories import AWAY, UNKNOWN_TOPIC, Relaying, ScriptedProducer, store

pytestmark = pytest.mark.django_db
Status = OutboxEvent.Status
HOURS = 24
HOUR_SECONDS = 3600
PROBE_SECONDS = 15  # a broker that stays away is asked so often


def away(producer: ScriptedProducer, report: Report, problem: str | None) -> None:
    producer.answer = lambda _record: report
    producer.problem = problem


def pass_an_hour(relaying: Relaying, *, step_seconds: float = PROBE_SECONDS) -> None:
    """The relay's rounds of an hour, one for each probe; the rows grow an hour older, by the only clock they know."""
    ends_at = relaying.clock.seconds + HOUR_SECONDS
    while relaying.clock.seconds < ends_at:
        relaying.relay.run_once()
        relaying.clock.advance(step_seconds)
    hour = timedelta(seconds=HOUR_SECONDS)
    OutboxEvent.objects.update(due_at=F("due_at") - hour, available_at=F("available_at") - hour)


def spent() -> set[tuple[str, int, int, int, str]]:
    """What an event can be charged with, of all that are not published."""
    fields = ("status", "retry_count", "crashes", "lease_token", "last_error")
    return set(OutboxEvent.objects.exclude(status=Status.PUBLISHED).values_list(*fields))


def assert_all_published_once_it_is_back(relaying: Relaying, ids: list[UUID]) -> None:
    producer: ScriptedProducer = relaying.producer
    producer.problem = None
    producer.answer = lambda _record: ACKNOWLEDGED
    producer.published.clear()
    relaying.clock.advance(PROBE_SECONDS)
    while relaying.relay.run_once():
        pass
    events = OutboxEvent.objects.all()
    assert set(events.values_list("pk", "status")) == {(event_id, Status.PUBLISHED) for event_id in ids}
    assert set(events.values_list("retry_count", "crashes", "lease_token", "due_at")) == {(0, 0, 0, None)}
    assert len(producer.published) == len(ids)
    assert not relaying.given_up
    assert not DeadLetter.objects.exists()


@pytest.mark.fault(16)
def test_a_day_without_kafka_costs_no_event_anything_and_all_go_out_when_it_is_back() -> None:
    relaying = Relaying(ScriptedProducer())
    away(relaying.producer, AWAY, "no broker")
    ids = []
    for _hour in range(HOURS):
        ids += store(5)
        pass_an_hour(relaying)
        assert spent() == {(Status.PENDING, 0, 0, 0, "")}
    assert len(relaying.producer.probed) >= HOURS * HOUR_SECONDS // PROBE_SECONDS - 10
    assert len(relaying.producer.published) == 5  # of the one claim that found out
    assert_all_published_once_it_is_back(relaying, ids)


@pytest.mark.fault(16)
@pytest.mark.parametrize("report", [AWAY, UNKNOWN_TOPIC], ids=["takes nothing", "topic is missing"])
def test_a_day_with_a_broker_that_answers_probes_and_takes_nothing_costs_no_event_anything(report: Report) -> None:
    relaying = Relaying(ScriptedProducer())
    away(relaying.producer, report, None)
    ids = []
    for _hour in range(HOURS):
        ids += store()
        pass_an_hour(relaying, step_seconds=600)
        assert spent() == {(Status.PENDING, 0, 0, 0, "")}
    assert len(relaying.producer.published) >= HOURS * 6  # handed over again and again, and never charged
    assert_all_published_once_it_is_back(relaying, ids)


@pytest.mark.fault(16)
def test_relays_that_are_started_anew_all_day_cost_no_event_anything() -> None:
    ids = store(5)
    producer = ScriptedProducer()
    away(producer, AWAY, "no broker")
    for _restart in range(HOURS * 4):
        relaying = Relaying(producer)  # a new process, which knows of no outage
        relaying.relay.run_once()
        relaying.clock.advance(PROBE_SECONDS)
        relaying.relay.run_once()
    assert spent() == {(Status.PENDING, 0, 0, 0, "")}
    assert_all_published_once_it_is_back(Relaying(producer), ids)


@pytest.mark.fault(16, 17)
def test_an_outage_that_begins_in_the_midst_of_a_batch_leaves_the_rest_as_it_was() -> None:
    ids = store(3)
    acknowledged = str(ids[0]).encode()

    def answer(record: OutgoingRecord) -> Report:
        return ACKNOWLEDGED if acknowledged in record.value else AWAY

    relaying = Relaying(ScriptedProducer(answer))
    relaying.relay.run_once()
    away(relaying.producer, AWAY, "no broker")
    for _hour in range(HOURS):
        pass_an_hour(relaying, step_seconds=600)
    assert spent() == {(Status.PENDING, 0, 0, 0, "")}
    left = set(OutboxEvent.objects.exclude(status=Status.PUBLISHED).values_list("pk", flat=True))
    assert left == set(ids[1:])
