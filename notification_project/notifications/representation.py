"""How a notification is shown."""

from datetime import datetime
from typing import Any

from shared_events.outbox.models import OutboxEvent

from .models import Notification

BASE_PATH = "/api/v1/notifications"


def representation(notification: Notification) -> dict[str, Any]:
    """A notification as GET shows it (NotificationSerializer describes it)."""
    path = f"{BASE_PATH}/{notification.pk}"
    failure = None
    if notification.status == Notification.Status.FAILED:
        failure = {
            "class": notification.failure_class,
            "code": notification.failure_code,
            "detail": notification.failure_detail,
        }
    return {
        "id": str(notification.pk),
        "status": str(notification.status),
        "final": notification.is_final,
        "recipient": notification.recipient,
        "subject": notification.subject,
        "client_reference": notification.client_reference,
        "metadata": notification.metadata,
        "created_at": _instant(notification.created_at),
        "send_after": _instant(notification.send_after),
        "send_before": _instant(notification.send_before),
        "sent_at": _instant(notification.sent_at),
        "failure": failure,
        "uncertain": notification.uncertain if notification.status == Notification.Status.UNCERTAIN else None,
        "attempts": notification.attempts[-1]["n"] if notification.attempts else 0,
        "next_attempt_at": _instant(notification.next_attempt_at)
        if notification.status == Notification.Status.PENDING
        else None,
        "possible_duplicates": notification.possible_duplicates,
        "links": {"self": path, "events": f"{path}/events", "cancel": f"{path}/cancel", "resolve": f"{path}/resolve"},
    }


def timeline(notification: Notification, event: OutboxEvent | None) -> list[dict[str, Any]]:
    """What happened so far in both services, from the row, its outbox event and the attempts that status events carried."""
    entries = [_entry(notification.created_at, "created")]
    if event is not None and event.published_at is not None:
        entries.append(_entry(event.published_at, "published", publications=event.publication))
    entries += [
        {
            "at": attempt["at"],
            "event": "attempt",
            "detail": {name: value for name, value in attempt.items() if name != "at"},
        }
        for attempt in notification.attempts
    ]
    if notification.status == Notification.Status.SENT:
        entries.append(_entry(notification.sent_at, "sent", possible_duplicates=notification.possible_duplicates))
    elif notification.status == Notification.Status.FAILED:
        entries.append(
            _entry(
                notification.ended_at,
                "failed",
                **{"class": notification.failure_class, "code": notification.failure_code},
            )
        )
    elif notification.status == Notification.Status.UNCERTAIN:
        entries.append(
            {
                "at": (notification.uncertain or {}).get("since"),
                "event": "uncertain",
                "detail": notification.uncertain or {},
            }
        )
    elif notification.status == Notification.Status.CANCELLED:
        entries.append(_entry(notification.ended_at, "cancelled"))
    elif notification.next_attempt_at is not None:
        entries.append(_entry(notification.next_attempt_at, "next attempt"))
    return entries


def _entry(at: datetime | None, event: str, **detail: Any) -> dict[str, Any]:
    return {"at": _instant(at), "event": event, "detail": detail}


def _instant(value: datetime | None) -> str | None:
    return value.isoformat().replace("+00:00", "Z") if value is not None else None
