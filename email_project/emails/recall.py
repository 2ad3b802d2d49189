"""The notification service's memory: what it knows of mails that this database, being restored, has forgotten."""

from collections.abc import Sequence
from typing import Any

import msgspec
import structlog
from django.db.models import F
from django.db.models.functions import Now

from shared_events.contracts.events import AnyStatus, EmailStatusKnown

from .models import RESTORED_PHASE, SentEmail
from .reports import report_of

Status = SentEmail.Status

log = structlog.get_logger(__name__)


def recall(events: Sequence[EmailStatusKnown]) -> list[AnyStatus]:
    """Applies what is known to mails that are behind it, and returns what to report of those; belongs into a transaction of the caller's.

    That a mail was SENT is a fact. One that FAILED in a generation which is past was replayed since, so nobody knows. Copies that were
    announced stay announced. A mail that is open is left to its worker: its outcome will be compared again.
    """
    mails = {
        mail.pk: mail
        for mail in SentEmail.objects.select_for_update()
        .filter(pk__in=[event.notification_id for event in events])
        .exclude(status__in=SentEmail.OPEN)
        .defer("message", "html")
        .order_by("pk")
    }
    reports = []
    for event in events:
        mail = mails.get(event.notification_id)
        changes = {} if mail is None else _changes(event, mail)
        if mail is None or not changes:
            continue
        SentEmail.objects.filter(pk=mail.pk).update(**changes, status_version=F("status_version") + 1, settled_at=Now())
        mail.refresh_from_db()
        log.warning("mail recalled", notification_id=str(mail.pk), status=mail.status)
        reports.append(report_of(mail))
    return reports


def _changes(event: EmailStatusKnown, mail: SentEmail) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if event.possible_duplicates > mail.possible_duplicates:
        changes["possible_duplicates"] = event.possible_duplicates
    if event.status == Status.SENT and mail.status != Status.SENT:
        return {
            **changes,
            "status": Status.SENT,
            "sent_at": event.sent_at or event.occurred_at,
            "attempts": msgspec.to_builtins(event.attempts),
            "generation": max(mail.generation, event.generation),
        }
    if event.generation > mail.generation and mail.status != Status.SENT:
        changes["generation"] = event.generation + 1
        if mail.status == Status.FAILED:
            changes |= {
                "status": Status.UNCERTAIN,
                "uncertain_phase": RESTORED_PHASE,
                "uncertain_since": Now(),
                "uncertain_host": "",
            }
    return changes
