"""`check_consistency` says of every notification where it is, and names those that nobody would take on."""

from typing import Any

import pytest

from tests.notification_project.factories import NotificationFactory, OutboxEventFactory, ago, ahead
from tests.shared_events.probes import consistency_table

pytestmark = pytest.mark.django_db

WAITING = {"status": "PENDING", "due_at": ago(seconds=1), "published_at": None}


def step_of(event: dict[str, Any] | None, **fields: Any) -> set[str]:
    row = NotificationFactory.create(**fields)
    if event is not None:
        OutboxEventFactory.create(notification=row, **event)
    code, lines = consistency_table()
    assert lines["all"] == "1"
    assert (code == 0) == (lines["every accepted one is final or owned by a live step"] == "holds")
    return {words for words, count in lines.items() if count == "1" and words != "all"}


@pytest.mark.parametrize(
    ("event", "fields", "step"),
    [
        ({}, {"status": "SENT", "sent_at": ago(seconds=1), "reconcile_at": None}, "final: SENT"),
        ({}, {"status": "FAILED", "failure_class": "policy", "reconcile_at": None}, "final: FAILED"),
        ({"status": "CANCELLED"}, {"status": "CANCELLED", "reconcile_at": None}, "final: CANCELLED"),
        ({}, {"status": "UNCERTAIN"}, "held as UNCERTAIN, until an operator resolves it"),
        (WAITING, {}, "to be published: relay_outbox"),
        ({**WAITING, "due_at": ahead(hours=1)}, {"send_after": ahead(hours=1)}, "scheduled: its event waits for send_after"),
        ({**WAITING, "publication": 2}, {}, "to be published again: relay_outbox"),
        ({**WAITING, "status": "FAILED"}, {}, "refused by the broker, to be published later: relay_outbox"),
        ({}, {}, "published and awaited: email_project, reconcile_notifications"),
        ({}, {"next_attempt_at": ahead(minutes=5)}, "deferred, to be sent again: email_project"),
    ],
)  # fmt: skip
def test_each_is_counted_in_its_step(event: dict[str, Any], fields: dict[str, Any], step: str) -> None:
    assert step_of(event, **fields) == {step}


@pytest.mark.parametrize(
    ("event", "fields"),
    [(None, {}), ({}, {"reconcile_at": None}), ({"status": "DEAD_LETTERED"}, {}), ({"status": "CANCELLED"}, {})],
    ids=["without its event", "never asked after", "given up", "cancelled by halves"],
)
def test_one_that_nobody_would_take_on_is_in_no_step(event: dict[str, Any] | None, fields: dict[str, Any]) -> None:
    assert step_of(event, **fields) == set()
    code, lines = consistency_table()
    assert (code, lines["every accepted one is final or owned by a live step"]) == (1, "BROKEN by 1 rows")
