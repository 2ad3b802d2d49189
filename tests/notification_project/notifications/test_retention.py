"""What prune deletes and keeps, and the invariants of the tables."""

from contextlib import suppress
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.checks import run_checks
from django.core.management import call_command

from notification_project.notifications.models import IdempotencyKey, Notification
from shared_events.contracts.events import id_at, new_id
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.factories import NotificationFactory, OutboxEventFactory, ago, ahead

pytestmark = pytest.mark.django_db


def old_id() -> UUID:
    return UUID(int=id_at(ago(days=100)).int + new_id().int % 2**60)


def old(status: str, **fields: Any) -> Any:
    reconcile_at = None if status in Notification.FINAL else ago(days=100)
    sent_at = ago(days=100) if status == "SENT" else None
    return NotificationFactory.create(id=old_id(), status=status, reconcile_at=reconcile_at, sent_at=sent_at, **fields)


def prune() -> str:
    out = StringIO()
    call_command("prune", stdout=out)
    return out.getvalue()


@pytest.mark.fault(63)
@pytest.mark.parametrize(
    ("status", "kept"),
    [("SENT", False), ("CANCELLED", False), ("FAILED", True), ("PENDING", True), ("UNCERTAIN", True)],
)
def test_what_is_final_and_no_failure_is_deleted_past_its_retention(status: str, kept: bool) -> None:
    row = old(status)
    prune()
    assert Notification.objects.filter(pk=row.pk).exists() is kept


@pytest.mark.fault(33)
@pytest.mark.parametrize(("status", "kept"), [("SENT", False), ("PENDING", True)])
def test_an_event_is_kept_while_it_may_have_to_be_published_again(status: str, kept: bool) -> None:
    event = OutboxEventFactory.create(id=old_id(), notification=old(status))
    prune()
    assert OutboxEvent.objects.filter(pk=event.pk).exists() is kept


@pytest.mark.fault(63)
@pytest.mark.parametrize("status", ["PENDING", "FAILED", "DEAD_LETTERED"])
def test_an_event_that_is_not_done_is_never_deleted(status: str) -> None:
    event = OutboxEventFactory.create(id=old_id(), notification=old("SENT"), status=status)
    prune()
    assert OutboxEvent.objects.filter(pk=event.pk).exists()


def test_expired_keys_are_deleted_and_living_ones_are_not() -> None:
    for n, expires_at in enumerate((ago(seconds=1), ahead(hours=1))):
        IdempotencyKey.objects.create(
            key_hash=bytes([n]) * 32,
            fingerprint=b"f" * 32,
            status_code=202,
            body=b"{}",
            created_at=ago(days=2),
            expires_at=expires_at,
        )
    assert "idempotency_keys: 1 deleted" in prune()
    assert [bytes(key) for key in IdempotencyKey.objects.values_list("pk", flat=True)] == [b"\x01" * 32]


def broken_lines() -> list[str]:
    out = StringIO()
    with suppress(SystemExit):
        call_command("check_consistency", stdout=out, stderr=StringIO())
    return [line for line in out.getvalue().splitlines() if "BROKEN" in line]


def test_a_pending_notification_with_its_event_holds_every_invariant() -> None:
    OutboxEventFactory.create(notification=NotificationFactory.create())
    assert broken_lines() == []


@pytest.mark.parametrize(
    ("fields", "event", "sentence"),
    [
        ({"reconcile_at": None}, {}, "every open notification will be asked after"),
        ({"status": "FAILED", "failure_class": "policy"}, {}, "no final notification is asked after"),
        ({}, {"status": "DEAD_LETTERED"}, "every open notification has its event"),
        ({"status": "CANCELLED", "reconcile_at": None}, {}, "no cancelled notification has left"),
        ({}, {"status": "PENDING"}, "every event that is to be published is due"),
        ({}, {"due_at": ago(days=1)}, "no event that is done is due"),
    ],
)
def test_each_broken_invariant_is_named(fields: dict[str, Any], event: dict[str, Any], sentence: str) -> None:
    notification = NotificationFactory.create(**fields)
    OutboxEventFactory.create(notification=notification, **event)
    assert any(line.startswith(sentence) for line in broken_lines())


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    ("name", "value", "identifier"),
    [
        ("SENT_EMAILS_RETENTION_DAYS", 15.9, "retention.E001"),
        ("OUTBOX_RETENTION_DAYS", 91.0, "notifications.E003"),
        ("IDEMPOTENCY_TTL_SECONDS", 91 * 86_400, "notifications.E002"),
    ],
)
def test_retentions_that_contradict_each_other_are_refused(
    settings: Any, name: str, value: float, identifier: str
) -> None:
    setattr(settings, name, value)
    found = [message for message in run_checks() if message.id == identifier]
    assert found
    assert name in str(found[0])
    assert found[0].hint
