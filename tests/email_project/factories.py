"""Events, records, rows and outcomes for the e-mail service's tests."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from django.db.models.functions import Now

from email_project.emails.delivery import Delivery, Result
from email_project.emails.models import SentEmail
from email_project.emails.outcomes import Kind, Outcome
from email_project.emails.settlement import DeliveryPolicy
from email_project.emails.smtp import Phase
from shared_events.contracts.events import (
    TYPES,
    Attempt,
    DeadLetterRecorded,
    EmailNotificationCreated,
    decode,
    encode,
    new_id,
    now,
)
from shared_events.contracts.topics import NOTIFICATION_EVENTS, PUBLICATION_HEADER
from shared_events.kafka.consumer import Record
from shared_events.outbox.models import OutboxEvent

TOKEN = 7
HOST = "relay.test"
POLICY = DeliveryPolicy(max_attempts=12, retry_base_seconds=5, retry_max_seconds=3600, max_resends=10)


def ago(**delta: float) -> datetime:
    return datetime.now(UTC) - timedelta(**delta)


def ahead(**delta: float) -> datetime:
    return datetime.now(UTC) + timedelta(**delta)


def created(**fields: Any) -> EmailNotificationCreated:
    at = fields.pop("created_at", now())
    return EmailNotificationCreated(
        **{
            "event_id": new_id(),
            "notification_id": new_id(),
            "occurred_at": at,
            "producer": "notification-service",
            "recipient": "ada@example.com",
            "subject": "Welcome",
            "message": "Welcome to NotifyX",
            "created_at": at,
            **fields,
        }
    )


def record(event: EmailNotificationCreated | bytes | None, *, offset: int = 0, publication: int = 1) -> Record:
    value = encode(event) if isinstance(event, EmailNotificationCreated) else event
    headers = () if publication == 1 else ((PUBLICATION_HEADER, str(publication).encode()),)
    return Record(NOTIFICATION_EVENTS, 0, offset, 1_700_000_000_000, b"key", value, headers)


def row(**fields: Any) -> SentEmail:
    """An unsaved mail, due now."""
    pk = fields.pop("id", None) or new_id()
    return SentEmail(
        **{
            "id": pk,
            "event_id": new_id(),
            "created_at": ago(minutes=1),
            "received_at": ago(minutes=1),
            "message_id": f"<{pk}@example.com>",
            "dated_at": ago(minutes=1).replace(microsecond=0),
            "sender": "NotifyX <noreply@example.com>",
            "recipient": "ada@example.com",
            "subject": "Welcome",
            "message": "Welcome to NotifyX",
            "due_at": Now(),
            **fields,
        }
    )


def store(count: int = 1, **fields: Any) -> list[UUID]:
    rows = [row(**fields) for _ in range(count)]
    SentEmail.objects.bulk_create(rows)
    return [mail.pk for mail in rows]


def claimed(count: int = 1, *, token: int = TOKEN, **fields: Any) -> list[Delivery]:
    """Mails that a worker holds."""
    store(count, **fields)
    rows = SentEmail.claim(batch=count, lease_seconds=60, token=token)
    return [Delivery.of_row(values, leased_until=1e12) for values in rows]


def delivery(**fields: Any) -> Delivery:
    """A mail in a worker's hands, without a row."""
    mail = row(**fields)
    values = {name: getattr(mail, name) for name in SentEmail.CLAIM_FIELDS}
    return Delivery.of_row([values[name] for name in SentEmail.CLAIM_FIELDS], leased_until=1e12)


def outcome(kind: Kind, **fields: Any) -> Outcome:
    spoken: dict[Kind, tuple[Phase, int | None, str | None, str]] = {
        Kind.SENT: (Phase.REPLY, 250, "2.0.0", "2.0.0 Ok: queued"),
        Kind.RETRY: (Phase.RCPT, 451, "4.3.0", "4.3.0 Try again later"),
        Kind.FAILED: (Phase.RCPT, 550, "5.1.1", "5.1.1 No such user"),
        Kind.DEPENDENCY: (Phase.CONNECT, None, None, ""),
        Kind.CONFIGURATION: (Phase.AUTH, 535, "5.7.8", "5.7.8 Authentication failed"),
        Kind.UNCERTAIN: (Phase.REPLY, None, None, ""),
    }
    phase, basic, enhanced, reply = spoken[kind]
    return Outcome(
        **{
            "kind": kind,
            "phase": phase,
            "failure_class": "recipient" if kind is Kind.FAILED else None,
            "code": enhanced or "timeout",
            "basic_code": basic,
            "enhanced_code": enhanced,
            "reply": reply,
            "hint_seconds": None,
            "greylisted": False,
            **fields,
        }
    )


def result(mail: Delivery, kind: Kind | None, **fields: Any) -> Result:
    return Result(delivery=mail, outcome=None if kind is None else outcome(kind, **fields), host=HOST)


def attempts(count: int, **fields: Any) -> list[dict[str, Any]]:
    made = [
        Attempt(
            **{"n": n, "at": ago(hours=1), "phase": "rcpt", "outcome": "retry", "code": 451, "host": HOST, **fields}
        )
        for n in range(1, count + 1)
    ]
    built: list[dict[str, Any]] = msgspec.to_builtins(made)
    return built


def reports() -> list[Any]:
    """The status events in the outbox, in the order of their making."""
    rows = OutboxEvent.objects.filter(event_type__in=TYPES).order_by("id")
    return [decode(bytes(event.payload)) for event in rows]


def dead_letter_events() -> list[DeadLetterRecorded]:
    rows = OutboxEvent.objects.filter(event_type="DEAD_LETTER_RECORDED").order_by("id")
    return [msgspec.json.decode(bytes(event.payload), type=DeadLetterRecorded) for event in rows]
