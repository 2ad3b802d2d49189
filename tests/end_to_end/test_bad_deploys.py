"""A version that cannot handle any record, as it is with a wrong schema: both consumers hold all, over restarts, and go on when mended."""

import json
from typing import Any

import pytest

from tests.end_to_end.platform import Platform, wait_until

COUNT = 60
RESTARTS = 3
DEFECTS = {"email": ("sent_emails", "INSERT"), "notification": ("notifications", "UPDATE")}
CONSUMERS = {"email": "consume_events", "notification": "consume_status"}


def break_schema(platform: Platform, service: str) -> None:
    table, verb = DEFECTS[service]
    refuse = "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'a defect'"
    platform.sql(service, f"CREATE TRIGGER defect BEFORE {verb} ON {table} FOR EACH ROW {refuse}")


def mend_schema(platform: Platform, service: str) -> None:
    platform.sql(service, "DROP TRIGGER IF EXISTS defect")


def open_circuits(platform: Platform, service: str) -> dict[str, Any]:
    rows = platform.sql(
        service,
        "SELECT command, open_circuits FROM process_state WHERE updated_at > UTC_TIMESTAMP() - INTERVAL 30 SECOND",
    )
    return {f"{command} {circuit['name']}": circuit["reason"] for command, text in rows for circuit in json.loads(text)}


@pytest.mark.parametrize("service", ["email", "notification"])
def test_a_consumer_that_fails_on_all_holds_them_over_restarts_and_loses_none(platform: Platform, service: str) -> None:
    consumer = CONSUMERS[service]
    platform.start_all()
    try:
        break_schema(platform, service)
        ids = platform.post_batches(COUNT)
        for _ in range(RESTARTS):
            wait_until(
                lambda: f"{consumer} fuse" in open_circuits(platform, service), 30, f"{consumer} says that it holds"
            )
            platform.one(consumer).terminate()
            platform.sql(service, "DELETE FROM process_state")
            platform.start(consumer)
        wait_until(lambda: f"{consumer} fuse" in open_circuits(platform, service), 30, f"{consumer} says that it holds")
        reason = open_circuits(platform, service)[f"{consumer} fuse"]
        assert "deploy a version that can" in reason
        if service == "notification":
            workers = platform.request("GET", "/health/ready", key=None).json()["workers"]
            assert ("consume_status", "fuse") in {(worker["command"], worker["name"]) for worker in workers}
        assert platform.count(service, "dead_letters") == 0
    finally:
        mend_schema(platform, service)
    platform.wait_all_sent(COUNT, 60)
    platform.assert_one_mail_each(ids)
    wait_until(lambda: not open_circuits(platform, service), 20, "the fuse is whole")
    assert (platform.count("email", "dead_letters"), platform.count("notification", "dead_letters")) == (0, 0)
