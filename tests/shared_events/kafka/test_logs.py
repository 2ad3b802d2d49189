"""An outage's log: librdkafka's lines for each try are few, and so are its tries."""

import contextlib
import logging
import time

from confluent_kafka import Consumer

from shared_events.kafka.configuration import consumer_configuration
from shared_events.kafka.logs import EVERY_SECONDS, OncePerMinute

from .conftest import mock_cluster

WATCHED_SECONDS = 4.0
TRIES_A_SECOND = 8.0  # with librdkafka's own back-off it is twenty


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def failed(broker: str, after_ms: int) -> logging.LogRecord:
    """A line as the client hands it over."""
    text = f"[thrd:{broker}]: {broker}: Connect to ipv4#{broker} failed: 100% refused (after {after_ms}ms in state CONNECT)"
    return logging.LogRecord(
        "librdkafka", logging.ERROR, __file__, 1, "%s [%s] %s", ("FAIL", "email#consumer-2", text), None
    )


def test_the_first_line_of_each_broker_is_written_at_once() -> None:
    once = OncePerMinute(clock=Clock())
    written = [once.filter(failed(broker, tries)) for tries in range(3) for broker in ("one:9092", "two:9092")]
    assert written == [True, True, False, False, False, False]


def test_after_a_minute_one_line_says_how_many_it_stands_for() -> None:
    clock = Clock()
    once = OncePerMinute(clock=clock)
    for tries in range(5):
        once.filter(failed("one:9092", tries))
    clock.now += EVERY_SECONDS
    line = failed("one:9092", 5)
    assert once.filter(line)
    assert line.getMessage().endswith("(after 5ms in state CONNECT) (4 more like it since the last line)")
    clock.now += EVERY_SECONDS
    line = failed("one:9092", 6)
    assert once.filter(line)
    assert line.getMessage().endswith("(after 6ms in state CONNECT)")


def test_a_consumer_whose_brokers_are_gone_does_not_try_without_a_pause() -> None:
    lines = Lines()
    logger = logging.getLogger("a consumer's tries")  # without the filter: every try is a line
    logger.propagate = False
    logger.addHandler(lines)
    with mock_cluster() as broker:
        topic = broker.new_topic()
        consumer = Consumer(consumer_configuration(broker.common, client_id="test", group="group"), logger=logger)
        consumer.subscribe([topic])
        with contextlib.closing(consumer):
            while not consumer.assignment():
                consumer.poll(0.1)
            assert broker.process is not None
            broker.process.kill()
            end = time.monotonic() + WATCHED_SECONDS
            while time.monotonic() < end:
                consumer.poll(0.1)
    assert 1 <= len(lines.texts) <= TRIES_A_SECOND * WATCHED_SECONDS, lines.texts[:5]
