"""The producer's contract, kept with both brokers: a report for each record, and whose fault it is."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from confluent_kafka import KafkaError

from shared_events.contracts.topics import PUBLICATION_HEADER
from shared_events.kafka import producer as producer_module
from shared_events.kafka.producer import (
    ACKNOWLEDGED,
    UNANSWERED,
    Fault,
    OutgoingRecord,
    RecordProducer,
    Report,
    report_of,
)

from .conftest import Broker, mock_cluster


def outgoing(topic: str, value: bytes = b"{}", key: bytes | None = b"key") -> OutgoingRecord:
    return OutgoingRecord(topic, key, value, [])


def faults(reports: list[Report]) -> list[Fault | None]:
    return [report.fault for report in reports]


def test_each_record_is_acknowledged_and_there(broker: Broker, topic: str, producer: RecordProducer) -> None:
    records = [outgoing(topic, str(n).encode()) for n in range(300)]
    assert producer.publish(records) == [ACKNOWLEDGED] * 300
    assert [record.value for record in broker.records(topic, 300)] == [record.value for record in records]


def test_key_value_and_headers_arrive_as_they_were(broker: Broker, topic: str, producer: RecordProducer) -> None:
    headers: list[tuple[str, str | bytes | None]] = [(PUBLICATION_HEADER, b"3"), ("empty", None)]
    producer.publish([OutgoingRecord(topic, None, b"\x00\xff", headers), OutgoingRecord(topic, b"\xfe", b"", [])])
    by_key = {record.key: record for record in broker.records(topic, 2)}
    assert (by_key[None].value, by_key[None].headers, by_key[None].publication) == (b"\x00\xff", tuple(headers), 3)
    assert (by_key[b"\xfe"].value, by_key[b"\xfe"].publication) == (b"", 1)


def test_no_records_need_no_broker(nowhere: Broker) -> None:
    assert nowhere.producer().publish([]) == []


@pytest.mark.fault(19)
def test_a_too_large_record_fails_alone(broker: Broker, topic: str, producer: RecordProducer) -> None:
    too_large = outgoing(topic, b"x" * 1_100_000)
    reports = producer.publish([outgoing(topic, b"1"), too_large, outgoing(topic, b"2"), too_large])
    assert faults(reports) == [None, Fault.MESSAGE, None, Fault.MESSAGE]
    assert {record.value for record in broker.records(topic, 2)} == {b"1", b"2"}
    assert producer.publish([outgoing(topic, b"3")]) == [ACKNOWLEDGED]


@pytest.mark.fault(19)
def test_what_the_broker_finds_too_large_fails_alone(real_broker: Broker) -> None:
    limited = real_broker.new_topic(partitions=1, **{"max.message.bytes": "2000"})
    producer = real_broker.producer()
    values = [b"1", b"x" * 5000, b"2", b"x" * 5000, b"3"]
    reports = producer.publish([outgoing(limited, value) for value in values])
    assert faults(reports) == [None, Fault.MESSAGE, None, Fault.MESSAGE, None]
    assert sorted(record.value or b"" for record in real_broker.records(limited, 3)) == [b"1", b"2", b"3"]
    assert real_broker.end_of(limited) == 3
    producer.close()


@pytest.mark.fault(19)
def test_an_unknown_topic_is_the_configurations_fault(real_broker: Broker) -> None:
    known, unknown = real_broker.new_topic(), "test-never-made"
    producer = real_broker.producer()
    reports = producer.publish([outgoing(known), outgoing(unknown), outgoing(known)])
    assert faults(reports) == [None, Fault.CONFIGURATION, None]
    problem = producer.probe([known, unknown])
    assert problem == f"unknown topic {unknown}: run create_topics"
    assert producer.probe([known]) is None
    producer.close()


def test_a_topic_that_was_made_meanwhile_is_found(real_broker: Broker) -> None:
    producer = real_broker.producer()
    late = f"test-late-{time.time_ns()}"
    assert faults(producer.publish([outgoing(late)])) == [Fault.CONFIGURATION]
    real_broker.new_topic(late)
    deadline = time.monotonic() + 20
    while producer.publish([outgoing(late)]) != [ACKNOWLEDGED]:
        assert time.monotonic() < deadline
    producer.close()


def test_a_broker_that_is_away_is_a_dependency_fault_within_the_time_out(nowhere: Broker) -> None:
    producer = nowhere.producer(message_timeout_seconds=1)
    began = time.monotonic()
    reports = producer.publish([outgoing("any"), outgoing("other")])
    assert faults(reports) == [Fault.DEPENDENCY, Fault.DEPENDENCY]
    assert time.monotonic() - began < 5
    assert producer.probe() is not None
    producer.close()


@pytest.mark.fault(17, 25)
def test_giving_up_ends_the_wait_and_purges(nowhere: Broker) -> None:
    producer = nowhere.producer(message_timeout_seconds=60)
    began = time.monotonic()
    reports = producer.publish([outgoing("any")], give_up=lambda: True)
    assert faults(reports) == [Fault.DEPENDENCY]
    assert time.monotonic() - began < 10
    producer.close()


@pytest.fixture
def own_mock() -> Iterator[Broker]:
    """A mock cluster of the test's own, which it may freeze."""
    with mock_cluster() as broker:
        yield broker


def test_after_giving_up_it_publishes_again(own_mock: Broker) -> None:
    topic = own_mock.new_topic()
    producer = own_mock.producer(message_timeout_seconds=60)
    assert producer.publish([outgoing(topic, b"1")]) == [ACKNOWLEDGED]
    own_mock.freeze()
    assert faults(producer.publish([outgoing(topic, b"2")], give_up=lambda: True)) == [Fault.DEPENDENCY]
    own_mock.thaw()
    assert producer.publish([outgoing(topic, b"3")]) == [ACKNOWLEDGED]
    assert b"3" in [record.value for record in own_mock.records(topic, own_mock.end_of(topic))]
    producer.close()


class RefusesTogether:
    """librdkafka's producer where a batch is refused as a whole, and then the broker falls silent."""

    def __init__(self, *_: object, **__: object) -> None:
        self.waiting: list[partial[None]] = []
        self.is_silent = False

    def __len__(self) -> int:
        return len(self.waiting)

    def produce(self, *_: object, on_delivery: "partial[None]", **__: object) -> None:
        self.waiting.append(on_delivery)

    def flush(self, seconds: float) -> int:
        if self.is_silent:
            time.sleep(seconds)
            return len(self)
        self.is_silent = True
        while self.waiting:
            self.waiting.pop()(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), None)
        return 0

    def purge(self) -> None:
        self.waiting.clear()


def test_publishing_refused_records_one_by_one_stays_within_the_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer_module, "Producer", RefusesTogether)
    producer = RecordProducer({}, client_id="test", message_timeout_seconds=0.2)
    began = time.monotonic()
    reports = producer.publish([outgoing("any")] * 8)
    assert time.monotonic() - began < 4
    assert faults(reports) == [Fault.DEPENDENCY] * 8


@pytest.mark.fault(17)
def test_a_broker_that_falls_silent_times_out_and_is_used_again_when_it_is_back(own_mock: Broker) -> None:
    topic = own_mock.new_topic()
    producer = own_mock.producer(message_timeout_seconds=1)
    own_mock.freeze()
    began = time.monotonic()
    assert faults(producer.publish([outgoing(topic)])) == [Fault.DEPENDENCY]
    assert time.monotonic() - began < 6
    own_mock.thaw()
    deadline = time.monotonic() + 30
    while producer.publish([outgoing(topic)]) != [ACKNOWLEDGED]:
        assert time.monotonic() < deadline
    producer.close()


def test_two_producers_publish_at_the_same_time(broker: Broker, topic: str) -> None:
    producers = [broker.producer() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        batches = list(pool.map(lambda one: one.publish([outgoing(topic)] * 100), producers))
    assert batches == [[ACKNOWLEDGED] * 100] * 2
    assert broker.end_of(topic) == 200
    for producer in producers:
        producer.close()


@pytest.mark.fault(17, 19)
@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, Fault.MESSAGE),
        (KafkaError.INVALID_RECORD, Fault.MESSAGE),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, Fault.CONFIGURATION),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, Fault.CONFIGURATION),
        (KafkaError.SASL_AUTHENTICATION_FAILED, Fault.CONFIGURATION),
        (KafkaError._MSG_TIMED_OUT, Fault.DEPENDENCY),
        (KafkaError._PURGE_QUEUE, Fault.DEPENDENCY),
        (KafkaError._PURGE_INFLIGHT, Fault.DEPENDENCY),
        (KafkaError._TRANSPORT, Fault.DEPENDENCY),
        (KafkaError.NOT_ENOUGH_REPLICAS, Fault.DEPENDENCY),
        (KafkaError._FATAL, Fault.DEPENDENCY),
    ],
)
def test_only_no_error_is_an_acknowledgement(code: int, fault: Fault) -> None:
    assert report_of(None) == ACKNOWLEDGED
    assert report_of(KafkaError(code)).fault is fault
    assert UNANSWERED.fault is Fault.DEPENDENCY
