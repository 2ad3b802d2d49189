"""The relay and its broker: an outage costs nothing, wrong configuration pauses, and one probe finds out when it is over."""

import json

import pytest
from confluent_kafka import KafkaError
from django.test import Client

from shared_events.kafka.producer import ACKNOWLEDGED, OutgoingRecord, Report, report_of
from shared_events.outbox.models import OutboxEvent
from shared_events.runtime.process_state import StateReport
from tests.shared_events.probes import counted_sql

from .factories import AWAY, TOO_LARGE, UNKNOWN_TOPIC, Relaying, ScriptedProducer, only, store

pytestmark = pytest.mark.django_db
Status = OutboxEvent.Status


@pytest.mark.fault(16)
def test_an_outage_opens_the_circuit_and_nothing_is_claimed_any_more() -> None:
    store(3)
    relaying = Relaying(ScriptedProducer(lambda _record: AWAY))
    relaying.relay.run_once()
    relaying.producer.problem = "no broker"
    with counted_sql() as sql:
        assert [relaying.relay.run_once() for _ in range(5)] == [0] * 5
    assert not sql.statements
    assert len(relaying.producer.published) == 3


def test_a_day_without_a_broker_consumes_nothing() -> None:
    store()
    relaying = Relaying(ScriptedProducer(lambda _record: AWAY))
    for _ in range(200):  # a broker that answers probes and takes nothing is the worst case
        relaying.relay.run_once()
        relaying.clock.advance(16)
    event = only()
    assert (event.status, event.retry_count, event.crashes, event.lease_token) == (Status.PENDING, 0, 0, 0)
    assert event.claims > 50
    assert not relaying.given_up


def test_probes_come_after_1_2_4_8_15_15_seconds() -> None:
    store()
    relaying = Relaying(ScriptedProducer(lambda _record: AWAY))
    relaying.relay.run_once()
    relaying.producer.problem = "no broker"
    began, at = relaying.clock.seconds, []
    while len(relaying.producer.probed) < 6:
        relaying.clock.advance(0.5)
        before = len(relaying.producer.probed)
        relaying.relay.run_once()
        if len(relaying.producer.probed) > before:
            at.append(relaying.clock.seconds - began)
    assert [later - earlier for earlier, later in zip([0.0, *at], at, strict=False)] == [1, 2, 4, 8, 15, 15]


def test_a_broker_that_is_back_gets_what_was_waiting() -> None:
    store(3)
    relaying = Relaying(ScriptedProducer(lambda _record: AWAY))
    relaying.relay.run_once()
    relaying.producer.answer = lambda _record: ACKNOWLEDGED
    relaying.clock.advance(1)
    assert [relaying.relay.run_once() for _ in range(3)] == [1, 2, 0]
    assert relaying.breaker.is_closed
    assert OutboxEvent.objects.filter(status=Status.PUBLISHED).count() == 3


@pytest.mark.fault(48)
def test_a_broker_that_answers_probes_and_takes_nothing_is_asked_with_one_event_then_two_then_four() -> None:
    store(200)
    relaying = Relaying(ScriptedProducer(lambda _record: AWAY))
    assert relaying.relay.run_once() == 200
    tried = []
    for _ in range(6):
        relaying.clock.advance(15)
        tried.append(relaying.relay.run_once())
        assert relaying.relay.run_once() == 0
    assert tried == [1, 2, 4, 8, 16, 32]
    assert set(OutboxEvent.objects.values_list("status", "retry_count", "crashes")) == {(Status.PENDING, 0, 0)}
    relaying.producer.answer = lambda _record: ACKNOWLEDGED
    relaying.clock.advance(15)
    assert [relaying.relay.run_once() for _ in range(3)] == [64, 136, 0]


@pytest.mark.fault(16)
def test_a_part_of_the_broker_that_is_away_does_not_stop_the_rest() -> None:
    store(topic="away")
    relaying = Relaying(ScriptedProducer(lambda record: AWAY if record.topic == "away" else ACKNOWLEDGED))
    for _ in range(20):
        relaying.relay.run_once()
        relaying.clock.advance(16)
    store(200, topic="there")
    for _ in range(10):
        relaying.relay.run_once()
        relaying.clock.advance(16)
    assert OutboxEvent.objects.filter(status=Status.PUBLISHED).count() == 200
    stuck = OutboxEvent.objects.get(topic="away")
    assert (stuck.status, stuck.retry_count, stuck.crashes) == (Status.PENDING, 0, 0)
    store(100, topic="there")
    relaying.clock.advance(1)  # one that takes some of them is asked again soon, and with whole batches
    assert relaying.relay.run_once() == 101


@pytest.mark.fault(48)
def test_an_event_that_fails_half_open_doubles_the_wait() -> None:
    store(3)
    relaying = Relaying(ScriptedProducer(lambda _record: AWAY))
    relaying.relay.run_once()
    waits = []
    for _ in range(6):
        waits.append(relaying.breaker.seconds_until_probe)
        relaying.clock.advance(waits[-1])
        assert relaying.relay.run_once() > 0
    assert waits == [1, 2, 4, 8, 15, 15]


def test_a_broker_that_is_back_closes_the_circuit_though_nothing_is_due() -> None:
    store()
    relaying = Relaying(ScriptedProducer(lambda _record: AWAY))
    relaying.relay.run_once()
    OutboxEvent.objects.all().delete()
    relaying.clock.advance(1)
    assert relaying.relay.run_once() == 0
    assert relaying.breaker.is_closed


def test_an_event_at_fault_shows_that_the_broker_is_there() -> None:
    store(2)
    relaying = Relaying(ScriptedProducer(lambda _record: AWAY))
    relaying.relay.run_once()
    relaying.producer.answer = lambda _record: TOO_LARGE
    relaying.clock.advance(1)
    assert relaying.relay.run_once() == 1
    assert relaying.breaker.is_closed


@pytest.mark.fault(19)
def test_an_unknown_topic_pauses_for_15_seconds_and_burns_nothing() -> None:
    store(3, topic="not-made")
    relaying = Relaying(ScriptedProducer(lambda _record: UNKNOWN_TOPIC))
    relaying.relay.run_once()
    relaying.producer.problem = "unknown topic not-made: run create_topics"
    for _ in range(3):
        relaying.clock.advance(14.9)
        assert relaying.relay.run_once() == 0
        relaying.clock.advance(0.1)
        relaying.relay.run_once()
    assert relaying.producer.probed == [{"not-made"}] * 3
    assert relaying.breaker.reason == "unknown topic not-made: run create_topics"
    assert set(OutboxEvent.objects.values_list("status", "retry_count", "crashes")) == {(Status.PENDING, 0, 0)}


def test_the_topic_that_was_missing_is_made_and_all_goes_on() -> None:
    store(topic="not-made")
    relaying = Relaying(ScriptedProducer(lambda _record: UNKNOWN_TOPIC))
    relaying.relay.run_once()
    relaying.producer.answer = lambda _record: ACKNOWLEDGED
    relaying.clock.advance(15)
    assert relaying.relay.run_once() == 1
    assert only().status == Status.PUBLISHED
    relaying.breaker.failure("gone")
    relaying.clock.advance(1)
    relaying.relay.run_once()
    assert relaying.producer.probed[-1] == set()


def test_one_unknown_topic_does_not_fail_its_neighbours() -> None:
    missing, known = store(topic="not-made")[0], store()[0]

    def answer(record: OutgoingRecord) -> Report:
        return UNKNOWN_TOPIC if record.topic == "not-made" else ACKNOWLEDGED

    Relaying(ScriptedProducer(answer)).relay.run_once()
    assert dict(OutboxEvent.objects.values_list("pk", "status")) == {missing: Status.PENDING, known: Status.PUBLISHED}


@pytest.mark.fault(25)
@pytest.mark.fault(19)
def test_a_missing_right_to_write_fails_nothing_is_said_once_a_minute_and_mended_by_itself(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker answers probes: only an event shows that it may not be written."""
    store(50)
    refused = report_of(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    relaying = Relaying(ScriptedProducer(lambda _record: refused))
    tried = [relaying.relay.run_once()]
    for _ in range(7):
        relaying.clock.advance(15)
        tried.append(relaying.relay.run_once())
    assert tried == [50] + [1] * 7
    StateReport("relay_outbox", [relaying.breaker]).write()
    (worker,) = json.loads(client.get("/health/ready").content)["workers"]
    assert (worker["command"], worker["name"]) == ("relay_outbox", "kafka")
    assert worker["reason"] == "notification-status-topic: Broker: Topic authorization failed"
    assert len([line for line in caplog.messages if "circuit open" in line]) == 2
    assert set(OutboxEvent.objects.values_list("status", "retry_count", "crashes")) == {(Status.PENDING, 0, 0)}
    relaying.producer.answer = lambda _record: ACKNOWLEDGED
    relaying.clock.advance(15)
    assert [relaying.relay.run_once() for _ in range(3)] == [1, 49, 0]
    assert not relaying.given_up


def test_what_a_stop_left_unanswered_says_nothing_about_the_broker() -> None:
    store(2)
    relaying = Relaying(ScriptedProducer(lambda _record: AWAY))
    relaying.gives_up = True
    relaying.relay.run_once()
    assert relaying.breaker.is_closed
    assert set(OutboxEvent.objects.values_list("status", "lease_token", "crashes")) == {(Status.PENDING, 0, 0)}
