"""What must hold in the notification service's tables."""

from django.db.models import Exists, OuterRef

from shared_events.dead_letters.invariants import OUTBOX, Invariant
from shared_events.outbox.models import OutboxEvent

from .cancellation import CREATED
from .models import Notification

Status = Notification.Status
OPEN = (Status.PENDING, Status.UNCERTAIN)

_CREATED = OutboxEvent.objects.filter(aggregate_id=OuterRef("pk"), event_type=CREATED)
_LIVE = _CREATED.exclude(status__in=(OutboxEvent.Status.CANCELLED, OutboxEvent.Status.DEAD_LETTERED))

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
