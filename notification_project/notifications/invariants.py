"""What must hold in the notification service's tables."""

from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from shared_events.dead_letters.invariants import OUTBOX, Invariant, Step
from shared_events.outbox.models import OutboxEvent

from .cancellation import CREATED
from .models import Notification

Status = Notification.Status
OPEN = (Status.PENDING, Status.UNCERTAIN)

_CREATED = OutboxEvent.objects.filter(aggregate_id=OuterRef("pk"), event_type=CREATED)
_LIVE = _CREATED.exclude(status__in=(OutboxEvent.Status.CANCELLED, OutboxEvent.Status.DEAD_LETTERED))

_AWAITED = _CREATED.filter(status=OutboxEvent.Status.PUBLISHED)
_WAITING = _CREATED.filter(status=OutboxEvent.Status.PENDING, due_at__isnull=False)
_REFUSED = _CREATED.filter(status=OutboxEvent.Status.FAILED, due_at__isnull=False)

_PENDING = Q(status=Status.PENDING, reconcile_at__isnull=False)  # so that its silence would be noticed

STEPS = (
    Notification.objects.all(),
    (
        Step("final: SENT", Q(status=Status.SENT)),
        Step("final: FAILED", Q(status=Status.FAILED)),
        Step("final: CANCELLED", Q(status=Status.CANCELLED)),
        Step(
            "held as UNCERTAIN, until an operator resolves it", Q(status=Status.UNCERTAIN, reconcile_at__isnull=False)
        ),
        Step("scheduled: its event waits for send_after", _PENDING & Q(Exists(_WAITING), send_after__gt=Now())),
        Step("to be published: relay_outbox", _PENDING & Q(Exists(_WAITING.filter(publication=1)))),
        Step("to be published again: relay_outbox", _PENDING & Q(Exists(_WAITING))),
        Step("refused by the broker, to be published later: relay_outbox", _PENDING & Q(Exists(_REFUSED))),
        Step(
            "deferred, to be sent again: email_project", _PENDING & Q(Exists(_AWAITED), next_attempt_at__isnull=False)
        ),
        Step("published and awaited: email_project, reconcile_notifications", _PENDING & Q(Exists(_AWAITED))),
    ),
)

INVARIANTS = (
    Invariant(
        "every open notification will be asked after",
        lambda: Notification.objects.filter(status__in=OPEN, reconcile_at=None),
    ),
    Invariant(
        "no final notification is asked after",
        lambda: Notification.objects.filter(reconcile_at__isnull=False).exclude(status__in=OPEN),
    ),
    Invariant(
        "every open notification has its event", lambda: Notification.objects.filter(~Exists(_LIVE), status__in=OPEN)
    ),
    Invariant(
        "no cancelled notification has left",
        lambda: Notification.objects.filter(Exists(_LIVE), status=Status.CANCELLED),
    ),
    Invariant("every SENT one has its time", lambda: Notification.objects.filter(status=Status.SENT, sent_at=None)),
    Invariant(
        "every FAILED one has its class", lambda: Notification.objects.filter(status=Status.FAILED, failure_class="")
    ),
    *OUTBOX,
)
