"""Kafka is away, or crashes, while notifications are posted: nothing is refused, spent, lost or sent twice."""

import time
from collections.abc import Iterator

import pytest

from tests.end_to_end.platform import Platform
from tests.end_to_end.traffic import Traffic

OUTAGE_SECONDS = 20


@pytest.fixture(scope="module")
def running(prepared: Platform) -> Iterator[Platform]:
    """All processes, with a message time-out that an outage outlasts, so that the circuit opens."""
    with prepared.running(KAFKA_MESSAGE_TIMEOUT_SECONDS="5", OUTBOX_LEASE_SECONDS="10"):
        yield prepared


@pytest.mark.fault(16)
def test_an_outage_of_kafka_delays_and_costs_nothing(running: Platform) -> None:
    with Traffic(running) as traffic:
        traffic.wait_until_flowing()
        running.services.stop("kafka")
        time.sleep(OUTAGE_SECONDS)
        running.services.start("kafka")
        traffic.wait_for_more(20)
    assert not traffic.refusals + traffic.broken
    traffic.assert_each_is_sent_once(90)
    running.assert_no_budget_was_spent()
    running.assert_all_live()
    assert not list(running.logs("topic was made anew"))


def test_a_crash_of_kafka_delays_and_costs_nothing(running: Platform) -> None:
    with Traffic(running) as traffic:
        traffic.wait_until_flowing()
        running.services.kafka.kill()
        traffic.wait_for_more(20)
        running.services.start("kafka")
        traffic.wait_for_more(20)
    assert not traffic.refusals + traffic.broken
    traffic.assert_each_is_sent_once(90)
    running.assert_no_budget_was_spent()
    running.assert_all_live()
