"""`check_consistency` says of every mail where it is, and names those that nobody would take on."""

from typing import Any

import pytest

from email_project.emails.models import SentEmail
from tests.email_project.factories import ago, ahead, store
from tests.shared_events.probes import consistency_table

pytestmark = pytest.mark.django_db
Status = SentEmail.Status

LEASED = {"lease_token": 7, "due_at": ahead(minutes=1)}


@pytest.mark.parametrize(
    ("fields", "step"),
    [
        ({"status": Status.SENT, "due_at": None}, "final: SENT"),
        ({"status": Status.FAILED, "due_at": None}, "final: FAILED"),
        ({"status": Status.UNCERTAIN, "due_at": None}, "held as UNCERTAIN, until an operator resolves it"),
        (LEASED, "being sent for the first time, leased by a worker"),
        ({"status": Status.RETRY_PENDING, **LEASED}, "being sent again, leased by a worker"),
        ({"lease_token": 7, "due_at": ago(seconds=1)}, "its owner's lease has ended: whoever has room claims it"),
        ({}, "due for the first time: consume_events, retry_emails"),
        ({"status": Status.RETRY_PENDING}, "due again: retry_emails"),
        ({"status": Status.RETRY_PENDING, "due_at": ahead(hours=1)}, "waits for its next attempt"),
    ],
)
def test_each_is_counted_in_its_step(fields: dict[str, Any], step: str) -> None:
    store(**{"status_version": 1, **fields})
    _, lines = consistency_table()
    assert {words for words, count in lines.items() if count == "1"} == {step, "all"}
    assert lines["every accepted one is final or owned by a live step"] == "holds"


def test_one_that_nobody_would_take_on_is_in_no_step() -> None:
    store(2, due_at=None)
    code, lines = consistency_table()
    assert (code, lines["every accepted one is final or owned by a live step"]) == (1, "BROKEN by 2 rows")
    assert lines["all"] == "2"
