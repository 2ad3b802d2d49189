"""All that Kafka held is gone: the reconciler brings both services to agree again, and nobody gets a second mail."""

from collections.abc import Sequence

import pytest

from tests.end_to_end.platform import Platform, wait_until
from tests.end_to_end.traffic import Traffic

COUNT = 500
PUBLISHED = "status = 'PUBLISHED'"
REPUBLISHED = "publication > 1"


@pytest.fixture
def platform(platform: Platform) -> Platform:
    platform.overrides = {
        "RECONCILE_AFTER_SECONDS": "3",
        "RECONCILE_POLL_SECONDS": "1",
        "KAFKA_MESSAGE_TIMEOUT_SECONDS": "5",
        "OUTBOX_LEASE_SECONDS": "10",
    }
    return platform


def lose_kafka_data(platform: Platform) -> None:
    platform.services.stop("kafka")
    platform.services.kafka.wipe()
    platform.services.start("kafka")
    platform.run("create_topics")


def assert_each_is_sent_once(platform: Platform, ids: Sequence[str]) -> None:
    platform.wait_all_sent(len(ids), 90)
    platform.assert_one_mail_each(ids)
    platform.assert_nothing_open()
    platform.assert_one_mail_each(ids)
    platform.assert_no_budget_was_spent()
    platform.assert_all_live()


@pytest.mark.fault(33)
def test_events_lost_before_they_were_consumed_are_published_again(platform: Platform) -> None:
    platform.start("notification_api", "notification_relay_outbox", "consume_status", "email_relay_outbox")
    ids = platform.post_batches(COUNT)
    wait_until(lambda: platform.count("notification", "outbox_events", PUBLISHED) == COUNT, 90, "all are published")
    lose_kafka_data(platform)
    platform.start("consume_events", "retry_emails", "reconcile_notifications")
    assert_each_is_sent_once(platform, ids)
    assert platform.count("notification", "outbox_events", REPUBLISHED) == COUNT


@pytest.mark.fault(33)
def test_statuses_lost_before_they_were_consumed_are_asked_for_again(platform: Platform) -> None:
    workers = ("notification_relay_outbox", "consume_events", "retry_emails", "email_relay_outbox")
    platform.start("notification_api", *workers)
    ids = platform.post_batches(COUNT)
    wait_until(lambda: platform.count("email", "outbox_events", PUBLISHED) == COUNT, 90, "all statuses are published")
    lose_kafka_data(platform)
    platform.start("consume_status", "reconcile_notifications")
    assert_each_is_sent_once(platform, ids)
    assert platform.count("notification", "outbox_events", REPUBLISHED) == COUNT


def test_a_loss_of_kafkas_data_under_traffic_ends_with_each_sent_once(platform: Platform) -> None:
    platform.start_all()
    with Traffic(platform) as traffic:
        traffic.wait_until_flowing()
        lose_kafka_data(platform)
        traffic.wait_for_more(20)
    assert not traffic.refusals + traffic.broken
    traffic.assert_each_is_sent_once(90)
    renewed = [line.partition("-")[0] for line in platform.logs("topic was made anew")]
    assert len(renewed) == len(
        set(renewed)
    )  # at most once each: a topic's id is asked for every five seconds, all may be done before
    platform.assert_no_budget_was_spent()
    platform.assert_all_live()
