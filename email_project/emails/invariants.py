"""What must hold in the e-mail service's tables."""

from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from shared_events.dead_letters.invariants import OUTBOX, Invariant, Step
from shared_events.dead_letters.models import DeadLetter

from .models import SentEmail

Status = SentEmail.Status

_LETTER = DeadLetter.objects.filter(notification_id=OuterRef("pk"))

_LEASED = Q(lease_token__gt=0, due_at__gt=Now())
_DUE = Q(due_at__lte=Now())

STEPS = (
    SentEmail.objects.all(),
    (
        Step("final: SENT", Q(status=Status.SENT)),
        Step("final: FAILED", Q(status=Status.FAILED)),
        Step("held as UNCERTAIN, until an operator resolves it", Q(status=Status.UNCERTAIN)),
        Step("being sent for the first time, leased by a worker", Q(status=Status.PROCESSING) & _LEASED),
        Step("being sent again, leased by a worker", Q(status=Status.RETRY_PENDING) & _LEASED),
        Step(
            "its owner's lease has ended: whoever has room claims it",
            Q(status__in=SentEmail.OPEN, lease_token__gt=0) & _DUE,
        ),
        Step("due for the first time: consume_events, retry_emails", Q(status=Status.PROCESSING) & _DUE),
        Step("due again: retry_emails", Q(status=Status.RETRY_PENDING) & _DUE),
        Step("waits for its next attempt", Q(status__in=SentEmail.OPEN, due_at__gt=Now())),
    ),
)

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
