"""The SMTP server or Redis is away while notifications are posted: nothing is refused, spent, lost or sent twice."""

import time
from collections.abc import Iterator

import pytest

from tests.end_to_end.platform import Platform
from tests.end_to_end.traffic import Traffic

OUTAGE_SECONDS = 20
FREEZE_SECONDS = 5
SLOWEST_SECONDS = 3


@pytest.fixture(scope="module")
def running(prepared: Platform) -> Iterator[Platform]:
    """All processes, with limits that count in Redis and refuse nobody here."""
    with prepared.running(RATE_LIMIT_CLIENT="100000/m", RATE_LIMIT_RECIPIENT="10/m", EMAIL_RETRY_BASE_SECONDS="1"):
        yield prepared


@pytest.mark.fault(41)
def test_an_outage_of_the_smtp_server_delays_and_costs_nothing(running: Platform) -> None:
    with Traffic(running) as traffic:
        traffic.wait_until_flowing()
        running.services.stop("smtp_sink")
        time.sleep(OUTAGE_SECONDS)
        assert running.count("email", "sent_emails", "status <> 'SENT'") > 0
        running.services.start("smtp_sink")
        traffic.wait_for_more(20)
    assert not traffic.refusals + traffic.broken
    # a mail whose final dot was on its way at the very moment is uncertain, and announced as such
    traffic.assert_each_is_sent(90)
    spent = "JSON_LENGTH(attempts) <> 1 + possible_duplicates"
    assert running.count("email", "sent_emails", spent) == 0
    running.assert_no_budget_was_spent()
    running.assert_all_live()


@pytest.mark.fault(7, 24)
def test_an_outage_of_redis_slows_posts_down_and_changes_no_result(running: Platform) -> None:
    with Traffic(running) as traffic:
        traffic.wait_until_flowing()
        running.services.stop("redis")
        time.sleep(OUTAGE_SECONDS)
        running.services.start("redis")
        traffic.wait_for_more(20)
    assert not traffic.refusals + traffic.broken
    assert traffic.slowest_seconds < SLOWEST_SECONDS
    traffic.assert_each_is_sent_once(90)
    running.assert_no_budget_was_spent()
    running.assert_all_live()


@pytest.mark.fault(7)
def test_a_frozen_redis_slows_posts_down_and_changes_no_result(running: Platform) -> None:
    with Traffic(running) as traffic:
        traffic.wait_until_flowing()
        running.services.redis.freeze()
        time.sleep(FREEZE_SECONDS)
        running.services.redis.thaw()
        traffic.wait_for_more(20)
    assert not traffic.refusals + traffic.broken
    assert traffic.slowest_seconds < SLOWEST_SECONDS
    traffic.assert_each_is_sent_once(90)
    running.assert_no_budget_was_spent()
    running.assert_all_live()
