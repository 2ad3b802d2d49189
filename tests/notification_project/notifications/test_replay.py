"""Replaying dead letters of the notification service."""

from typing import Any

import pytest

from notification_project.notifications.models import Notification
from notification_project.notifications.replay import NotificationReplayer
from notification_project.notifications.unpublishable import fail_notifications
from shared_events.contracts.events import EmailSent, encode, new_id, now
from shared_events.dead_letters.models import DeadLetter
from shared_events.dead_letters.replay import Order, Verdict, judge, replay
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.factories import NotificationFactory, OutboxEventFactory, record

pytestmark = pytest.mark.django_db

ORDER = Order("ops", "the broker takes it now")


def given_up() -> tuple[Any, Any, DeadLetter]:
    """A notification whose event the broker refused for good."""
    notification = NotificationFactory.create()
    event = OutboxEventFactory.create(notification=notification, status="DEAD_LETTERED", retry_count=10)
    fail_notifications([(event.pk, "too large")])
    return notification, event, DeadLetter.objects.get(notification_id=notification.pk)


def test_an_unpublishable_event_is_published_again_and_its_notification_is_pending() -> None:
    notification, event, letter = given_up()
    assert [verdict for _, verdict in replay([letter], NotificationReplayer(), ORDER)] == [Verdict.REPLAY]
    event.refresh_from_db()
    notification.refresh_from_db()
    assert (event.status, event.retry_count, event.due_at is None) == (OutboxEvent.Status.PENDING, 0, False)
    assert (notification.status, notification.ended_at) == (Notification.Status.PENDING, None)
    assert notification.reconcile_at is not None


@pytest.mark.fault(58)
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("SENT", Verdict.ALREADY_SENT),
        ("CANCELLED", Verdict.CANCELLED),
        ("UNCERTAIN", Verdict.UNCERTAIN),
        ("PENDING", Verdict.SUPERSEDED),
    ],
)
def test_what_went_on_another_way_is_left(status: str, expected: Verdict) -> None:
    notification, event, letter = given_up()
    Notification.objects.filter(pk=notification.pk).update(status=status)
    assert judge([letter], NotificationReplayer())[letter.pk] is expected
    assert [verdict for _, verdict in replay([letter], NotificationReplayer(), ORDER)] == [expected]
    event.refresh_from_db()
    assert event.status == OutboxEvent.Status.DEAD_LETTERED


def orphan(notification_id: Any) -> DeadLetter:
    report = EmailSent(
        event_id=new_id(),
        notification_id=notification_id,
        status_version=1,
        occurred_at=now(),
        producer="email-service",
        sent_at=now(),
    )
    letter = DeadLetter.of_record(
        record(encode(report)), letter_class="orphan_status", cause="unknown", notification_id=notification_id
    )
    letter.save(force_insert=True)
    return letter


@pytest.mark.fault(52)
def test_an_orphan_status_is_merged_once_its_notification_is_there() -> None:
    notification = NotificationFactory.create()
    letter = orphan(notification.pk)
    assert [verdict for _, verdict in replay([letter], NotificationReplayer(), ORDER)] == [Verdict.REPLAY]
    notification.refresh_from_db()
    assert notification.status == Notification.Status.SENT


def test_an_orphan_status_without_its_notification_stays() -> None:
    letter = orphan(new_id())
    assert judge([letter], NotificationReplayer())[letter.pk] is Verdict.TOO_OLD
