"""The consumer loop's contract, kept with both brokers."""

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from shared_events.kafka.producer import OutgoingRecord, RecordProducer
from tests.shared_events.probes import Clock, wait_until

from .conftest import Broker
from .handlers import AWAY, Handler, Looping

StartLoop = Callable[..., Looping]


@pytest.fixture
def start_loop(broker: Broker, topic: str) -> Iterator[StartLoop]:
    """A loop in the test's consumer group; each is closed at the end."""
    group = f"group-{uuid.uuid4()}"
    started: list[Looping] = []

    def start(handler: Handler, **options: Any) -> Looping:
        started.append(Looping(broker.consumer(group), topic, handler, **options))
        return started[-1]

    yield start
    for looping in started:
        looping.loop.close()


@pytest.fixture
def publish(producer: RecordProducer, topic: str) -> Callable[..., None]:
    def publish_values(*values: bytes | None, key: bytes = b"same") -> None:
        records = [OutgoingRecord(topic, key, value, []) for value in values]  # type: ignore[arg-type]
        assert all(report.fault is None for report in producer.publish(records))

    return publish_values


def committed(looping: Looping, topic: str) -> int:
    """The sum of the group's committed offsets: how many of the topic's records will not come again."""
    consumer: Consumer = looping.loop._consumer
    partitions = [
        TopicPartition(topic, number) for number in consumer.list_topics(topic, timeout=10).topics[topic].partitions
    ]
    return sum(max(0, place.offset) for place in consumer.committed(partitions, timeout=10))


def test_a_batch_is_handled_and_then_committed(start_loop: StartLoop, publish: Callable[..., None], topic: str) -> None:
    looping = start_loop(Handler())
    publish(*(str(n).encode() for n in range(50)))
    looping.run_until_handled(50)
    assert looping.handler.handled == [str(n).encode() for n in range(50)]
    wait_until(lambda: committed(looping, topic) == 50)


def test_a_batch_has_a_limit(start_loop: StartLoop, publish: Callable[..., None]) -> None:
    publish(*(str(n).encode() for n in range(25)))
    looping = start_loop(Handler(), batch_records=10)
    looping.run_until_handled(25)
    assert max(len(call) for call in looping.handler.calls) <= 10


def test_the_first_record_does_not_wait_for_a_full_batch(start_loop: StartLoop, publish: Callable[..., None]) -> None:
    looping = start_loop(Handler())
    publish(b"first")
    looping.run_until_handled(1)
    publish(b"second")
    began = time.monotonic()
    while len(looping.handler.handled) < 2:
        looping.loop.run_once(30)
    assert time.monotonic() - began < 10


def test_an_idle_loop_returns_after_its_poll(start_loop: StartLoop) -> None:
    looping = start_loop(Handler())
    assert looping.loop.run_once(0.05) == 0
    assert not looping.handler.calls


@pytest.mark.fault(26)
def test_nothing_is_committed_before_it_is_handled(
    start_loop: StartLoop, publish: Callable[..., None], topic: str
) -> None:
    publish(b"1", b"2")
    seen: list[int] = []
    handler = Handler()
    looping = start_loop(handler)
    keep = handler.__class__.__call__

    class Looks(Handler):
        def __call__(self, records: object) -> None:
            seen.append(committed(looping, topic))
            keep(self, records)  # type: ignore[arg-type]

    handler.__class__ = Looks
    looping.run_until_handled(2)
    assert seen[0] == 0
    wait_until(lambda: committed(looping, topic) == 2)


@pytest.mark.fault(30)
def test_a_passing_error_holds_the_records_and_then_goes_on(
    start_loop: StartLoop, publish: Callable[..., None], topic: str
) -> None:
    publish(b"1", b"2", b"3")
    looping = start_loop(Handler(errors=[AWAY]))
    wait_until(lambda: looping.loop.run_once(0.2) == 0 and looping.handler.calls)
    held = looping.handler.calls[0]
    assert (looping.handler.handled, committed(looping, topic)) == ([], 0)
    publish(b"4")
    looping.run_until_handled(4)
    assert looping.handler.handled == [b"1", b"2", b"3", b"4"]
    assert looping.handler.calls[1][: len(held)] == held
    wait_until(lambda: committed(looping, topic) == 4)


@pytest.mark.fault(30)
def test_while_records_are_held_they_are_not_handed_over_before_their_time(
    start_loop: StartLoop, publish: Callable[..., None]
) -> None:
    publish(b"1")
    handler = Handler()
    handler.is_away = True
    looping = start_loop(handler)
    looping.loop._backoff.next_wait_seconds = lambda: 60.0  # type: ignore[method-assign]
    wait_until(lambda: looping.loop.run_once(0.2) == 0 and handler.calls)
    for _ in range(5):
        looping.clock.advance(10)
        looping.loop.run_once(0.01)
    assert len(handler.calls) == 1
    handler.is_away = False
    looping.run_until_handled(1)
    assert handler.handled == [b"1"]


def test_a_handlers_error_is_pinned_to_its_record(
    start_loop: StartLoop, publish: Callable[..., None], topic: str
) -> None:
    publish(b"1", b"bad", b"2", b"3")
    looping = start_loop(Handler(bad=[b"bad"]))
    looping.run_until_handled(4)
    assert looping.handler.handled == [b"1", b"2", b"3"]
    assert looping.handler.letters == [(b"bad", "handler_error", "ZeroDivisionError")]
    wait_until(lambda: committed(looping, topic) == 4)


@pytest.mark.fault(29, 30)
def test_a_dead_letter_that_cannot_be_written_holds_the_batch(
    start_loop: StartLoop, publish: Callable[..., None], topic: str
) -> None:
    publish(b"bad", b"1")
    handler = Handler(bad=[b"bad"])
    looping = start_loop(handler)

    def away(*_: object, **__: object) -> None:
        raise AWAY

    looping.loop._write_dead_letter = away
    wait_until(lambda: looping.loop.run_once(0.2) == 0 and handler.calls)
    assert committed(looping, topic) == 0
    looping.loop._write_dead_letter = handler.write_dead_letter
    looping.run_until_handled(2)
    assert [letter[0] for letter in handler.letters] == [b"bad"]


def test_a_run_of_bad_records_is_held_over_restarts_until_a_version_can_handle_them(
    start_loop: StartLoop, publish: Callable[..., None], topic: str
) -> None:
    publish(*[b"bad"] * 6)
    for _ in range(2):
        looping = start_loop(Handler(bad=[b"bad"]), fuse_records=4)
        wait_until(lambda: looping.loop.run_once(0.2) == 0 and looping.handler.calls)  # noqa: B023
        looping.loop.close()
        assert not looping.handler.letters
    mended = start_loop(Handler(), fuse_records=4)
    mended.run_until_handled(6)
    assert mended.handler.handled == [b"bad"] * 6
    wait_until(lambda: committed(mended, topic) == 6)


def test_a_good_record_between_bad_ones_keeps_the_fuse(start_loop: StartLoop, publish: Callable[..., None]) -> None:
    publish(*[b"bad", b"bad", b"good"] * 4)
    looping = start_loop(Handler(bad=[b"bad"]), fuse_records=2)
    looping.run_until_handled(12)
    assert len(looping.handler.letters) == 8


def test_a_record_without_a_value_goes_through(start_loop: StartLoop, publish: Callable[..., None], topic: str) -> None:
    publish(b"1", None, b"2")
    looping = start_loop(Handler())
    looping.run_until_handled(3)
    assert looping.handler.handled == [b"1", None, b"2"]
    wait_until(lambda: committed(looping, topic) == 3)


def test_the_next_owner_begins_where_the_last_one_closed(start_loop: StartLoop, publish: Callable[..., None]) -> None:
    publish(b"1", b"2")
    first = start_loop(Handler())
    first.run_until_handled(2)
    first.loop.close()
    publish(b"3")
    second = start_loop(Handler())
    second.run_until_handled(1)
    assert second.handler.handled == [b"3"]


@pytest.mark.fault(26)
def test_what_was_not_handled_comes_to_the_next_owner(start_loop: StartLoop, publish: Callable[..., None]) -> None:
    publish(b"1")
    handler = Handler()
    handler.is_away = True
    first = start_loop(handler)
    wait_until(lambda: first.loop.run_once(0.2) == 0 and handler.calls)
    first.loop.close()
    second = start_loop(Handler())
    second.run_until_handled(1)
    assert second.handler.handled == [b"1"]
    assert not handler.handled


@pytest.mark.fault(28)
def test_held_partitions_that_were_moved_away_and_back_go_on(real_broker: Broker) -> None:
    topic = real_broker.new_topic(partitions=4)
    group = f"group-{uuid.uuid4()}"
    producer = real_broker.producer()
    producer.publish([OutgoingRecord(topic, str(n).encode(), str(n).encode(), []) for n in range(20)])
    handler = Handler()
    handler.is_away = True
    first = Looping(real_broker.consumer(group), topic, handler, clock=Clock())
    wait_until(lambda: first.loop.run_once(0.2) == 0 and handler.calls)
    other = Handler()
    other.is_away = True
    second = Looping(real_broker.consumer(group), topic, other, clock=Clock())

    def both_hold() -> bool:
        first.loop.run_once(0.1)
        second.loop.run_once(0.1)
        return bool(other.calls) and len(first.loop._consumer.assignment()) == 2

    wait_until(both_hold, seconds=40)
    second.loop.close()
    handler.is_away = False
    first.run_until_handled(20)
    assert {int(value or b"") for value in handler.handled} == set(range(20))
    assert not other.handled
    first.loop.close()
    producer.close()
