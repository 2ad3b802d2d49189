"""What this machine can do at most, measured in the same run as the product's own figures, which are given as shares of it."""

import hashlib
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import msgspec
import MySQLdb

from shared_events.contracts.events import Attempt, EmailNotificationCreated, EmailSent, encode, new_id, now
from shared_events.contracts.topics import NOTIFICATION_EVENTS, NOTIFICATION_STATUS

ROWS_A_TRANSACTION = 200
TOKEN = 4_611_686_018_427_387_904

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of one notification in all tables, as they are inserted, and what their later UPDATEs write."""

    key: Row
    notification: Row
    request: Row
    mail: Row
    status: Row
    attempts: str


def measure_rows(notification_url: str, email_url: str, *, notifications: int = 2_000) -> float:
    """Notifications a second (ROWS): the twelve row writes that each needs through both services, as multi-row SQL alone.

    One thread, one connection to each database, 200 rows a transaction. The tables must exist; what is written is due in a day, so
    that workers beside this leave it alone, and is deleted in the end. Blocks for a second or two. Raises MySQLdb.Error.
    """
    rows = [_rows(number) for number in range(notifications)]
    with closing(_connect(notification_url)) as requests, closing(_connect(email_url)) as mails:
        try:
            began = time.perf_counter()
            for chunk in _chunks(rows):
                _write(requests, mails, chunk)
            return notifications / (time.perf_counter() - began)
        finally:
            _delete(requests, mails, rows)


def _connect(url: str) -> Any:
    parts = urlsplit(url)
    connection: Any = MySQLdb.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=parts.path[1:],
        charset="utf8mb4",
        init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    )
    return connection


def _write(requests: Any, mails: Any, chunk: Sequence[_Rows]) -> None:
    """Statement by statement and commit by commit as POST, relay, intake, sending, relay and consume_status do it."""
    cursor = requests.cursor()
    _insert(cursor, "idempotency_keys", [row.key for row in chunk])
    _insert(cursor, "notifications", [row.notification for row in chunk])
    _insert(cursor, "outbox_events", [row.request for row in chunk])
    requests.commit()
    _relay(requests, [row.request["id"] for row in chunk])

    ids = [row.mail["id"] for row in chunk]
    attempts = {row.mail["id"]: row.attempts for row in chunk}
    cursor = mails.cursor()
    _insert(cursor, "sent_emails", [row.mail for row in chunk])
    mails.commit()
    _update(cursor, "sent_emails", "data_started_at = UTC_TIMESTAMP(6)", ids)
    mails.commit()
    _update_attempts(
        cursor,
        "sent_emails",
        "status = 'SENT', status_version = status_version + 1, due_at = NULL, lease_token = 0, crashes = 0, "
        "data_started_at = NULL, sent_at = UTC_TIMESTAMP(6), settled_at = UTC_TIMESTAMP(6)",
        attempts,
    )
    _insert(cursor, "outbox_events", [row.status for row in chunk])
    mails.commit()
    _relay(mails, [row.status["id"] for row in chunk])

    _update_attempts(
        requests.cursor(),
        "notifications",
        "status = 'SENT', status_version = GREATEST(status_version, 1), sent_at = UTC_TIMESTAMP(6), reconcile_at = NULL, "
        "reconciled = 0, next_attempt_at = NULL, uncertain = NULL, possible_duplicates = 0",
        attempts,
    )
    requests.commit()


def _relay(connection: Any, ids: Sequence[str]) -> None:
    cursor = connection.cursor()
    claim = "due_at = UTC_TIMESTAMP(6) + INTERVAL 1 DAY, lease_token = %s, crashes = crashes + 1, claims = claims + 1"
    _update(cursor, "outbox_events", claim, ids, TOKEN)
    connection.commit()
    settle = (
        "status = 'PUBLISHED', due_at = NULL, published_at = UTC_TIMESTAMP(6), lease_token = 0, crashes = 0, "
        "last_error = ''"
    )
    _update(cursor, "outbox_events", settle, ids)
    connection.commit()


def _insert(cursor: Any, table: str, rows: Sequence[Row]) -> None:
    place = f"({', '.join(['%s'] * len(rows[0]))})"
    statement = f"INSERT INTO {table} ({', '.join(rows[0])}) VALUES {', '.join([place] * len(rows))}"
    cursor.execute(statement, [value for row in rows for value in row.values()])


def _update(cursor: Any, table: str, changes: str, ids: Sequence[str], *values: Any) -> None:
    cursor.execute(f"UPDATE {table} SET {changes} WHERE id IN ({', '.join(['%s'] * len(ids))})", [*values, *ids])


def _update_attempts(cursor: Any, table: str, changes: str, attempts: dict[str, str]) -> None:
    whens = " ".join(["WHEN id = %s THEN %s"] * len(attempts))
    pairs = [value for pair in attempts.items() for value in pair]
    _update(cursor, table, f"{changes}, attempts = CASE {whens} END", list(attempts), *pairs)


def _delete(requests: Any, mails: Any, rows: Sequence[_Rows]) -> None:
    for connection in (requests, mails):
        connection.rollback()
    for chunk in _chunks(rows):
        wanted = (
            (requests, "idempotency_keys", "key_hash", [row.key["key_hash"] for row in chunk]),
            (requests, "notifications", "id", [row.notification["id"] for row in chunk]),
            (requests, "outbox_events", "id", [row.request["id"] for row in chunk]),
            (mails, "sent_emails", "id", [row.mail["id"] for row in chunk]),
            (mails, "outbox_events", "id", [row.status["id"] for row in chunk]),
        )
        for connection, table, column, values in wanted:
            places = ", ".join(["%s"] * len(values))
            connection.cursor().execute(f"DELETE FROM {table} WHERE {column} IN ({places})", values)
            connection.commit()


def _chunks(rows: Sequence[_Rows]) -> Iterable[Sequence[_Rows]]:
    return (rows[first : first + ROWS_A_TRANSACTION] for first in range(0, len(rows), ROWS_A_TRANSACTION))


def _rows(number: int) -> _Rows:
    notification_id, created_at = new_id(), now()
    recipient, subject, message = f"r{number}@example.com", "Welcome", "Welcome to NotifyX"
    attempts = [Attempt(n=1, at=created_at, phase="reply", outcome="sent", code=250, reply="2.0.0 Ok", host="relay")]
    request = EmailNotificationCreated(
        event_id=new_id(),
        notification_id=notification_id,
        occurred_at=created_at,
        producer="notification-service",
        recipient=recipient,
        subject=subject,
        message=message,
        created_at=created_at,
    )
    status = EmailSent(
        event_id=new_id(),
        notification_id=notification_id,
        status_version=1,
        occurred_at=created_at,
        producer="email-service",
        attempts=attempts,
        sent_at=created_at,
    )
    return _Rows(
        key=_key_row(notification_id, created_at),
        notification=_notification_row(notification_id, created_at, recipient, subject),
        request=_outbox_row(request, "EMAIL_NOTIFICATION_CREATED", NOTIFICATION_EVENTS),
        mail=_mail_row(request),
        status=_outbox_row(status, "EMAIL_SENT", NOTIFICATION_STATUS),
        attempts=msgspec.json.encode(attempts).decode(),
    )


def _key_row(notification_id: UUID, created_at: datetime) -> Row:
    digest = hashlib.sha256(notification_id.bytes).digest()
    return {
        "key_hash": digest,
        "fingerprint": digest,
        "status_code": 202,
        "location": f"/api/v1/notifications/{notification_id}",
        "body": b"x" * 700,  # the answer, as GET shows the notification
        "created_at": _stamp(created_at),
        "expires_at": _stamp(created_at + timedelta(days=1)),
    }


def _notification_row(notification_id: UUID, created_at: datetime, recipient: str, subject: str) -> Row:
    nothing = dict.fromkeys(
        ("client_reference", "send_after", "send_before", "sent_at", "uncertain", "next_attempt_at")
    )
    return {
        **nothing,
        "id": notification_id.hex,
        "client_id": 0,
        "recipient": recipient,
        "subject": subject,
        "metadata": "{}",
        "created_at": _stamp(created_at),
        "on_uncertain": "resend",
        "status": "PENDING",
        "status_version": 0,
        "failure_class": "",
        "failure_code": "",
        "failure_detail": "",
        "attempts": "[]",
        "possible_duplicates": 0,
        "generation": 0,
        "reconcile_at": _stamp(created_at + timedelta(days=1)),
        "reconciled": 0,
    }


def _outbox_row(event: EmailNotificationCreated | EmailSent, event_type: str, topic: str) -> Row:
    return {
        "id": event.event_id.hex,
        "aggregate_id": event.notification_id.hex,
        "event_type": event_type,
        "topic": topic,
        "message_key": None,
        "payload": encode(event),
        "status": "PENDING",
        "retry_count": 0,
        "crashes": 0,
        "claims": 0,
        "publication": 1,
        "lease_token": 0,
        "due_at": _stamp(event.occurred_at + timedelta(days=1)),
        "available_at": _stamp(event.occurred_at),
        "created_at": _stamp(event.occurred_at),
        "published_at": None,
        "last_error": "",
    }


def _mail_row(request: EmailNotificationCreated) -> Row:
    nothing = dict.fromkeys(
        ("send_after", "send_before", "html", "reply_to", "sent_at", "settled_at", "uncertain_since")
    )
    empty = dict.fromkeys(("failure_class", "failure_code", "failure_detail", "uncertain_phase", "uncertain_host"), "")
    zero = dict.fromkeys(("status_version", "generation", "retry_count", "possible_duplicates"), 0)
    created_at = _stamp(request.created_at)
    return {
        **nothing,
        **empty,
        **zero,
        "id": request.notification_id.hex,
        "event_id": request.event_id.hex,
        "created_at": created_at,
        "received_at": created_at,
        "on_uncertain": "resend",
        "message_id": f"<{request.notification_id}@example.com>",
        "dated_at": created_at,
        "sender": "NotifyX <noreply@example.com>",
        "recipient": request.recipient,
        "subject": request.subject,
        "message": request.message,
        "status": "PROCESSING",
        "attempts": "[]",
        "due_at": _stamp(request.created_at + timedelta(days=1)),
        "lease_token": TOKEN,
        "crashes": 1,
        "data_started_at": None,
    }


def _stamp(instant: datetime) -> datetime:
    """MySQL's columns hold UTC without saying so."""
    return instant.astimezone(UTC).replace(tzinfo=None)
