"""What must hold in the e-mail service's tables."""

from django.db.models import Exists, OuterRef, Q

from shared_events.dead_letters.invariants import OUTBOX, Invariant
from shared_events.dead_letters.models import DeadLetter

from .models import SentEmail

Status = SentEmail.Status

_LETTER = DeadLetter.objects.filter(notification_id=OuterRef("pk"))

INVARIANTS = (
    Invariant("every open mail is due", lambda: SentEmail.objects.filter(status__in=SentEmail.OPEN, due_at=None)),
    Invariant(
        "no settled mail is due, leased or marked",
        lambda: SentEmail.objects.exclude(status__in=SentEmail.OPEN).exclude(
            Q(due_at=None) & Q(lease_token=0) & Q(data_started_at=None)
        ),
    ),
    Invariant(
        "every settled mail has its outcome counted",
        lambda: SentEmail.objects.exclude(status__in=SentEmail.OPEN).filter(status_version=0),
    ),
    Invariant("every SENT one has its time", lambda: SentEmail.objects.filter(status=Status.SENT, sent_at=None)),
    Invariant(
        "every FAILED one has its class", lambda: SentEmail.objects.filter(status=Status.FAILED, failure_class="")
    ),
    Invariant(
        "every FAILED one has its dead letter", lambda: SentEmail.objects.filter(~Exists(_LETTER), status=Status.FAILED)
    ),
    Invariant(
        "every held one has its place and time",
        lambda: SentEmail.objects.filter(status=Status.UNCERTAIN, uncertain_since=None),
    ),
    *OUTBOX,
)
