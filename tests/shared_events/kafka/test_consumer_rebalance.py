"""Partitions that go while records of theirs are pending, shown with a consumer that moves them at a chosen poll."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from tests.shared_events.probes import Clock

from .handlers import AWAY, TOPIC, Arrived, Handler, Looping, ScriptedConsumer


class Failed(Arrived):
    def __init__(self, error: KafkaError) -> None:
        super().__init__(0, 0)
        self._error = error

    def error(self) -> KafkaError:
        return self._error


def looping(consumer: ScriptedConsumer, handler: Handler) -> Looping:
    return Looping(consumer, TOPIC, handler, clock=Clock())  # type: ignore[arg-type]


@pytest.mark.fault(28)
def test_records_of_a_partition_that_goes_amid_a_batch_are_dropped() -> None:
    consumer = ScriptedConsumer([Arrived(0, 5), Arrived(1, 7), 0, Arrived(1, 8)])
    handler = Handler()
    looping(consumer, handler).loop.run_once()
    assert handler.handled == [b"1/7", b"1/8"]
    assert consumer.committed == [(1, 9)]


@pytest.mark.fault(28)
def test_held_records_of_a_partition_that_goes_are_dropped() -> None:
    consumer = ScriptedConsumer([Arrived(0, 5), Arrived(1, 7), None])
    handler = Handler()
    handler.is_away = True
    one = looping(consumer, handler)
    one.loop.run_once()
    consumer.script = [0]
    handler.is_away = False
    one.clock.advance(10)
    one.loop.run_once()
    assert handler.handled == [b"1/7"]
    assert (consumer.committed, consumer.calls) == ([(1, 8)], ["pause", "resume", "resume"])


@pytest.mark.fault(28)
def test_each_partition_is_committed_up_to_its_last_record() -> None:
    consumer = ScriptedConsumer([Arrived(0, 5), Arrived(1, 7), Arrived(0, 6), Arrived(2, 0)])
    assert looping(consumer, Handler()).loop.run_once() == 4
    assert sorted(consumer.committed) == [(0, 7), (1, 8), (2, 1)]


def test_an_error_that_the_broker_reports_is_no_record() -> None:
    consumer = ScriptedConsumer([Failed(KafkaError(KafkaError._TRANSPORT)), Arrived(0, 1)])
    handler = Handler()
    one = looping(consumer, handler)
    assert (one.loop.run_once(), one.loop.run_once()) == (0, 1)
    assert handler.handled == [b"0/1"]


def test_a_fatal_error_ends_the_loop() -> None:
    fatal = KafkaError(KafkaError._FENCED, "fenced", fatal=True)
    with pytest.raises(KafkaException):
        looping(ScriptedConsumer([Failed(fatal)]), Handler()).loop.run_once()


@pytest.mark.fault(27, 28)
def test_a_commit_that_fails_costs_no_record() -> None:
    class Refuses(ScriptedConsumer):
        def commit(self, **_: object) -> None:
            raise KafkaException(KafkaError(KafkaError._NO_OFFSET))

    handler = Handler()
    assert looping(Refuses([Arrived(0, 1)]), handler).loop.run_once() == 1
    assert handler.handled == [b"0/1"]


def test_a_consumer_of_a_topic_that_was_made_anew_replaces_the_old_one_and_what_was_held() -> None:
    class Closes(ScriptedConsumer):
        def close(self) -> None:
            self.calls.append("close")

    old, fresh = Closes([Arrived(0, 5)]), Closes([Arrived(0, 0)])
    handler = Handler(errors=[AWAY])
    one = looping(old, handler)
    one.loop.run_once()
    one.loop._renew = lambda: fresh if one.loop._consumer is old else None  # type: ignore[comparison-overlap]
    assert one.loop.run_once() == 1
    assert (handler.handled, fresh.committed) == ([b"0/0"], [(0, 1)])
    assert (old.calls, old.committed) == (["pause", "close"], [])
