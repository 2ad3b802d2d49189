"""How far a group has come on a topic: what it committed, and the end where it committed nothing."""

import contextlib
import uuid

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition

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


def test_a_topic_that_does_not_exist_and_a_broker_that_is_away_are_errors(
    real_broker: Broker, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KafkaException):
        consumed_offsets(real_broker.common, group=group, topic=f"none-{uuid.uuid4()}")
    monkeypatch.setattr("shared_events.kafka.offsets.TIMEOUT_SECONDS", 0.5)
    with pytest.raises(KafkaException):
        consumed_offsets({"bootstrap.servers": f"127.0.0.1:{closed_port()}"}, group=group, topic="any")
