"""Rows and bodies for the notification service's tests."""
# mypy: allow-untyped-calls

from datetime import UTC, datetime, timedelta
from typing import Any

from factory.base import DictFactory
from factory.declarations import LazyAttribute, LazyFunction, SelfAttribute, Sequence, SubFactory
from factory.django import DjangoModelFactory

from notification_project.notifications.models import ApiClient, Notification
from shared_events.contracts.events import EmailNotificationCreated, new_id, now
from shared_events.contracts.topics import NOTIFICATION_EVENTS
from shared_events.dead_letters.models import DeadLetter
from shared_events.kafka.consumer import Record
from shared_events.outbox.models import OutboxEvent

PRODUCER = "notification-service"


class BodyFactory(DictFactory):
    """A POST's body with the three required fields; each has a recipient of its own."""

    recipient = Sequence(lambda n: f"recipient-{n}@example.com")
    subject = "Welcome"
    message = "Welcome to NotifyX"


class ApiClientFactory(DjangoModelFactory[Any]):
    class Meta:
        model = ApiClient

    name = Sequence(lambda n: f"client-{n}")


class NotificationFactory(DjangoModelFactory[Any]):
    class Meta:
        model = Notification

    id = LazyFunction(new_id)
    client = SubFactory(ApiClientFactory)
    recipient = Sequence(lambda n: f"recipient-{n}@example.com")
    subject = "Welcome"
    created_at = LazyFunction(now)
    reconcile_at = SelfAttribute("created_at")


class OutboxEventFactory(DjangoModelFactory[Any]):
    """The creation event of a notification (`notification=`), published unless told otherwise."""

    class Meta:
        model = OutboxEvent

    class Params:
        notification = None

    id = LazyFunction(new_id)
    aggregate_id = LazyAttribute(lambda event: event.notification.pk if event.notification else new_id())
    event_type = "EMAIL_NOTIFICATION_CREATED"
    topic = NOTIFICATION_EVENTS
    payload = b"{}"
    status = OutboxEvent.Status.PUBLISHED
    claims = 1
    due_at = None
    available_at = LazyFunction(now)
    created_at = LazyFunction(now)
    published_at = LazyFunction(now)


class DeadLetterFactory(DjangoModelFactory[Any]):
    class Meta:
        model = DeadLetter

    id = LazyFunction(new_id)
    identity = Sequence(lambda n: n.to_bytes(32, "big"))
    notification_id = LazyFunction(new_id)
    letter_class = "unreadable"
    cause = "the record has no value"
    source_topic = "notification-status-topic"
    source_partition = 0
    source_offset = Sequence(int)
    original = b"\xff not text"
    created_at = LazyFunction(now)


def created_event(notification: Notification, **fields: Any) -> EmailNotificationCreated:
    return EmailNotificationCreated(
        event_id=new_id(),
        notification_id=notification.pk,
        occurred_at=notification.created_at,
        producer=PRODUCER,
        recipient=notification.recipient,
        subject=notification.subject,
        message="Welcome to NotifyX",
        created_at=notification.created_at,
        **fields,
    )


def record(value: bytes | None, *, offset: int = 0, key: bytes | None = b"key") -> Record:
    """A record of the status topic; offsets tell records of equal value apart."""
    return Record("notification-status-topic", 0, offset, 1_700_000_000_000 + offset, key, value)


def ago(**delta: float) -> datetime:
    return datetime.now(UTC) - timedelta(**delta)


def ahead(**delta: float) -> datetime:
    return datetime.now(UTC) + timedelta(**delta)
