"""What `prune` may delete here."""

from django.conf import settings
from django.db.models import Exists, OuterRef

from shared_events.dead_letters.models import DeadLetter
from shared_events.dead_letters.retention import DEAD_LETTERS, PruneRule, older_than, older_time
from shared_events.outbox.models import OutboxEvent

from .models import SentEmail

_OPEN_LETTER = DeadLetter.objects.filter(notification_id=OuterRef("pk"), replayed_at=None, dismissed_at=None)

PRUNE_RULES = (
    PruneRule(
        "outbox_events",
        lambda: OutboxEvent.objects.filter(
            pk__lt=older_than(settings.OUTBOX_RETENTION_DAYS), status=OutboxEvent.Status.PUBLISHED
        ),
    ),
    PruneRule(
        "sent_emails",
        lambda: SentEmail.objects.filter(
            pk__lt=older_than(settings.SENT_EMAILS_RETENTION_DAYS),
            settled_at__lt=older_time(settings.SENT_EMAILS_RETENTION_DAYS),
            status__in=(SentEmail.Status.SENT, SentEmail.Status.FAILED),
        ).exclude(Exists(_OPEN_LETTER)),
    ),
    DEAD_LETTERS,
)
