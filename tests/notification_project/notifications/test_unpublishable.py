"""A request event that can never be published fails its notification, in the relay's settling transaction."""

import pytest
from django.conf import settings as django_settings
from django.utils.module_loading import import_string

from notification_project.notifications.unpublishable import fail_notifications
from shared_events.contracts.topics import NOTIFICATION_DEAD_LETTERS
from shared_events.dead_letters.models import DeadLetter
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.factories import NotificationFactory, OutboxEventFactory

pytestmark = pytest.mark.django_db


def test_the_settings_name_this_hook() -> None:
    assert import_string(django_settings.OUTBOX_UNPUBLISHABLE) is fail_notifications


def test_the_notification_fails_with_the_reason_and_a_dead_letter_is_made() -> None:
    row = NotificationFactory.create()
    event = OutboxEventFactory.create(notification=row, payload=b"the event")
    fail_notifications([(event.pk, "MSG_SIZE_TOO_LARGE")])
    row.refresh_from_db()
    assert (row.status, row.failure_class, row.failure_detail) == ("FAILED", "unpublishable", "MSG_SIZE_TOO_LARGE")
    assert row.reconcile_at is None
    assert row.ended_at is not None
    letter = DeadLetter.objects.get()
    assert (letter.letter_class, letter.cause, letter.notification_id) == (
        "unpublishable",
        "MSG_SIZE_TOO_LARGE",
        row.pk,
    )
    assert bytes(letter.original or b"") == b"the event"
    assert OutboxEvent.objects.filter(topic=NOTIFICATION_DEAD_LETTERS, status="PENDING").count() == 1


def test_each_of_many_fails_with_its_own_reason() -> None:
    rows = NotificationFactory.create_batch(3)
    events = [OutboxEventFactory.create(notification=row) for row in rows]
    fail_notifications([(event.pk, f"reason {n}") for n, event in enumerate(events)])
    for n, row in enumerate(rows):
        row.refresh_from_db()
        assert row.failure_detail == f"reason {n}"


@pytest.mark.parametrize("status", ["SENT", "CANCELLED", "UNCERTAIN"])
def test_one_that_is_not_pending_any_more_is_left(status: str) -> None:
    row = NotificationFactory.create(status=status)
    fail_notifications([(OutboxEventFactory.create(notification=row).pk, "reason")])
    row.refresh_from_db()
    assert (row.status, row.failure_class) == (status, "")


@pytest.mark.fault(56)
def test_the_event_of_a_dead_letter_makes_no_dead_letter_and_fails_nothing() -> None:
    row = NotificationFactory.create()
    event = OutboxEventFactory.create(
        notification=row, topic=NOTIFICATION_DEAD_LETTERS, event_type="DEAD_LETTER_RECORDED"
    )
    fail_notifications([(event.pk, "reason")])
    row.refresh_from_db()
    assert row.status == "PENDING"
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("event_type", ["EMAIL_RESOLUTION_REQUESTED", "EMAIL_STATUS_KNOWN"])
def test_what_is_only_said_about_a_mail_becomes_a_dead_letter_and_fails_nothing(event_type: str) -> None:
    row = NotificationFactory.create()
    event = OutboxEventFactory.create(notification=row, event_type=event_type)
    fail_notifications([(event.pk, "reason")])
    row.refresh_from_db()
    assert (row.status, row.reconcile_at is None) == ("PENDING", False)
    assert DeadLetter.objects.get().notification_id == row.pk


def test_a_long_reason_is_cut_to_its_column() -> None:
    row = NotificationFactory.create()
    fail_notifications([(OutboxEventFactory.create(notification=row).pk, "ä" * 2_000)])
    row.refresh_from_db()
    assert row.failure_detail == "ä" * 500
