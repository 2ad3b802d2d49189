"""How far a group has come on a topic: what it committed, and the end where it committed nothing."""

import contextlib
import itertools
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from shared_events.kafka.offsets import consumed_offsets
from tests.shared_events.kafka.conftest import Broker
from tests.shared_events.probes import closed_port

COMMITTED = 2
PRESENT = 5


@pytest.fixture
def group() -> str:
    return f"group-{uuid.uuid4()}"


@pytest.fixture
def topic(real_broker: Broker) -> str:
    """Two partitions with five records each."""
    name = real_broker.new_topic()
    producer = Producer(dict(real_broker.common))
    for partition in (0, 1):
        for _ in range(PRESENT):
            producer.produce(name, b"x", partition=partition)
    assert producer.flush(10) == 0
    return name


def commit(broker: Broker, group: str, topic: str, partition: int) -> None:
    with contextlib.closing(broker.consumer(group)) as consumer:
        consumer.commit(offsets=[TopicPartition(topic, partition, COMMITTED)], asynchronous=False)


def test_a_group_has_consumed_what_it_committed(real_broker: Broker, group: str, topic: str) -> None:
    for partition in (0, 1):
        commit(real_broker, group, topic, partition)
    assert consumed_offsets(real_broker.common, group=group, topic=topic) == {0: COMMITTED, 1: COMMITTED}


def test_where_a_group_committed_nothing_it_may_have_consumed_all(real_broker: Broker, group: str, topic: str) -> None:
    assert consumed_offsets(real_broker.common, group=group, topic=topic) == {0: PRESENT, 1: PRESENT}
    commit(real_broker, group, topic, 1)
    assert consumed_offsets(real_broker.common, group=group, topic=topic) == {0: PRESENT, 1: COMMITTED}


def test_all_that_is_present_can_be_asked_for(real_broker: Broker, group: str, topic: str) -> None:
    commit(real_broker, group, topic, 0)
    found = consumed_offsets(real_broker.common, group=group, topic=topic, all_present=True)
    assert found == {0: PRESENT, 1: PRESENT}


def answering_first(monkeypatch: pytest.MonkeyPatch, codes: Iterator[int]) -> list[int]:
    """Has the group's coordinator answer with each of `codes` before it answers at all. A broker does so for the moment in which it
    takes a group over, which no test can hold it in. The list that is returned grows by what was answered."""
    ask = AdminClient.list_consumer_group_offsets
    answered = []

    def list_consumer_group_offsets(
        client: AdminClient, request: list[Any], **options: Any
    ) -> dict[str, "Future[Any]"]:
        code = next(codes, None)
        if code is None:
            return ask(client, request, **options)
        answered.append(code)
        future: Future[Any] = Future()
        future.set_exception(KafkaException(KafkaError(code)))
        return {request[0].group_id: future}

    monkeypatch.setattr(AdminClient, "list_consumer_group_offsets", list_consumer_group_offsets)
    return answered


def test_a_coordinator_that_takes_the_group_over_is_asked_again(
    real_broker: Broker, group: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(real_broker, group, topic, 0)
    moves = [KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS]
    answered = answering_first(monkeypatch, iter(moves))
    assert consumed_offsets(real_broker.common, group=group, topic=topic) == {0: COMMITTED, 1: PRESENT}
    assert answered == moves


def test_a_coordinator_that_never_comes_to_rest_is_an_error(
    real_broker: Broker, group: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared_events.kafka.offsets.TIMEOUT_SECONDS", 0.5)
    answered = answering_first(monkeypatch, itertools.repeat(KafkaError.COORDINATOR_LOAD_IN_PROGRESS))
    with pytest.raises(KafkaException, match="COORDINATOR_LOAD_IN_PROGRESS"):
        consumed_offsets(real_broker.common, group=group, topic=topic)
    assert len(answered) > 1


def test_another_refusal_of_the_coordinator_is_an_error_at_once(
    real_broker: Broker, group: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = answering_first(monkeypatch, itertools.repeat(KafkaError.GROUP_AUTHORIZATION_FAILED))
    with pytest.raises(KafkaException, match="GROUP_AUTHORIZATION_FAILED"):
        consumed_offsets(real_broker.common, group=group, topic=topic)
    assert answered == [KafkaError.GROUP_AUTHORIZATION_FAILED]


def test_a_topic_that_does_not_exist_and_a_broker_that_is_away_are_errors(
    real_broker: Broker, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KafkaException):
        consumed_offsets(real_broker.common, group=group, topic=f"none-{uuid.uuid4()}")
    monkeypatch.setattr("shared_events.kafka.offsets.TIMEOUT_SECONDS", 0.5)
    with pytest.raises(KafkaException):
        consumed_offsets({"bootstrap.servers": f"127.0.0.1:{closed_port()}"}, group=group, topic="any")
