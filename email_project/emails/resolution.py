"""An operator's word on an uncertain mail, from the API or an admin: UNCERTAIN → SENT, FAILED or RETRY_PENDING, once a generation."""

from collections.abc import Sequence
from typing import Any

import structlog
from django.conf import settings
from django.db.models import F
from django.db.models.functions import Now

from shared_events.contracts.events import AnyStatus, EmailReplayed, EmailResolutionRequested, new_id, now
from shared_events.contracts.topics import NOTIFICATION_STATUS
from shared_events.dead_letters.models import AuditEntry, DeadLetter, record_dead_letters
from shared_events.outbox.models import OutboxEvent

from .delivery import Delivery
from .models import SentEmail
from .reports import report_of

log = structlog.get_logger(__name__)


def resolve(requests: Sequence[EmailResolutionRequested]) -> list[AnyStatus]:
    """Applies each request that is for the mail's generation, and returns what to report; belongs into a transaction of the caller's.

    A request that comes too late, or a second one, changes nothing and is answered with the state as it is.
    """
    mails = {
        mail.pk: mail
        for mail in SentEmail.objects.select_for_update()
        .filter(pk__in=[request.notification_id for request in requests])
        .defer("message", "html")
        .order_by("pk")
    }
    reports = []
    for request in requests:
        mail = mails.get(request.notification_id)
        if mail is None:
            log.warning("nothing to resolve: the mail is not known", notification_id=str(request.notification_id))
            continue
        if _apply(request, mail):
            log.info("uncertain mail resolved", notification_id=str(mail.pk), resolution=request.resolution)
        reports.append(_report(request, mail))
    return reports


def resolve_at_once(mail: SentEmail, resolution: str, *, reason: str, operator: str) -> None:
    """Does what the event would do, with its report and its audit entry; belongs into a transaction of the caller's."""
    request = EmailResolutionRequested(
        event_id=new_id(),
        notification_id=mail.pk,
        occurred_at=now(),
        producer=settings.PRODUCER,
        resolution=resolution,  # type: ignore[arg-type]
        reason=reason,
        operator=operator,
        generation=mail.generation,
    )
    reports = resolve([request])
    OutboxEvent.objects.bulk_create([OutboxEvent.of(report, NOTIFICATION_STATUS) for report in reports])
    AuditEntry.objects.create(
        action=AuditEntry.Action.RESOLVE,
        operator=operator[:150],
        subject_id=mail.pk,
        reason=reason[:500],
        detail=resolution,
    )


def _apply(request: EmailResolutionRequested, mail: SentEmail) -> bool:
    uncertain = SentEmail.objects.filter(pk=mail.pk, status=SentEmail.Status.UNCERTAIN, generation=request.generation)
    changes: dict[str, Any] = {
        "status_version": F("status_version") + 1,
        "generation": F("generation") + 1,
        "settled_at": Now(),
        "crashes": 0,
    }
    if request.resolution == "delivered":
        changes |= {"status": SentEmail.Status.SENT, "sent_at": F("uncertain_since")}
    elif request.resolution == "not_delivered":
        changes |= {
            "status": SentEmail.Status.FAILED,
            "failure_class": "operator",
            "failure_code": "not_delivered",
            "failure_detail": request.reason[:500],
        }
    else:
        changes |= {
            "status": SentEmail.Status.RETRY_PENDING,
            "due_at": Now(),
            "retry_count": 0,
            "possible_duplicates": F("possible_duplicates") + 1,
        }
    if not uncertain.update(**changes):
        return False
    mail.refresh_from_db()
    if mail.status == SentEmail.Status.FAILED:
        letter = DeadLetter.of_notification(
            mail.pk,
            mail.generation,
            letter_class="operator",
            cause=request.reason,
            original=Delivery.of_mail(SentEmail.objects.get(pk=mail.pk)).original(),
        )
        record_dead_letters([letter], topic=settings.DEAD_LETTER_TOPIC, producer=settings.PRODUCER)
    return True


def _report(request: EmailResolutionRequested, mail: SentEmail) -> AnyStatus:
    report = report_of(mail)
    if request.resolution == "resend" and mail.status == SentEmail.Status.RETRY_PENDING:
        return replayed(mail)
    return report


def replayed(mail: SentEmail) -> EmailReplayed:
    """That a mail is due again."""
    report = report_of(mail)
    return EmailReplayed(
        event_id=report.event_id,
        notification_id=report.notification_id,
        status_version=report.status_version,
        occurred_at=report.occurred_at,
        producer=report.producer,
        attempts=report.attempts,
        possible_duplicates=report.possible_duplicates,
        generation=report.generation,
    )
