"""MariaDB is away, crashes or stands still while notifications are posted: 503 meanwhile, and nothing accepted is lost."""

import time
from collections.abc import Iterator

import pytest

from tests.end_to_end.platform import Answer, Platform, wait_until
from tests.end_to_end.traffic import Traffic

OUTAGE_SECONDS = 10
FREEZE_SECONDS = 6
CRASHES = 3


@pytest.fixture(scope="module")
def running(prepared: Platform) -> Iterator[Platform]:
    """All processes. Leases are short: a claim whose COMMIT was not answered is nobody's until it ends."""
    with prepared.running(
        KAFKA_MESSAGE_TIMEOUT_SECONDS="5",
        OUTBOX_LEASE_SECONDS="12",
        EMAIL_LEASE_SECONDS="20",
        EMAIL_RETRY_BASE_SECONDS="1",
    ):
        yield prepared


def ready(platform: Platform) -> Answer:
    return platform.request("GET", "/health/ready", key=None)


def assert_refused_well(traffic: Traffic) -> None:
    assert not traffic.broken
    for answer in traffic.refusals:
        assert answer.status == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["code"] in {"database-unavailable", "outcome-unknown"}


@pytest.mark.fault(30)
def test_an_outage_of_the_database_is_answered_503_and_loses_nothing_accepted(running: Platform) -> None:
    with Traffic(running) as traffic:
        traffic.wait_until_flowing()
        running.services.stop("mariadb")
        time.sleep(OUTAGE_SECONDS)
        assert ready(running).status == 503
        assert traffic.refusals
        running.services.start("mariadb")
        wait_until(lambda: ready(running).status == 200, 10, "the API is ready again")
        traffic.wait_for_more(20)
    assert_refused_well(traffic)
    traffic.assert_each_is_sent(90)
    running.assert_no_budget_was_spent()
    running.assert_all_live()


@pytest.mark.fault(4, 30)
def test_crashes_of_the_database_lose_nothing_accepted(running: Platform) -> None:
    with Traffic(running) as traffic:
        traffic.wait_until_flowing()
        for _ in range(CRASHES):
            running.services.mariadb.kill()
            assert ready(running).status == 503
            running.services.start("mariadb")
            traffic.wait_for_more(20)
    assert_refused_well(traffic)
    traffic.assert_each_is_sent(90)
    running.assert_no_budget_was_spent()
    running.assert_all_live()


@pytest.mark.fault(30)
def test_a_frozen_database_loses_nothing_accepted(running: Platform) -> None:
    with Traffic(running) as traffic:
        traffic.wait_until_flowing()
        running.services.mariadb.freeze()
        assert ready(running).status == 503
        time.sleep(FREEZE_SECONDS)
        running.services.mariadb.thaw()
        traffic.wait_for_more(20)
    assert_refused_well(traffic)
    traffic.assert_each_is_sent(90)
    running.assert_no_budget_was_spent()
    running.assert_all_live()
