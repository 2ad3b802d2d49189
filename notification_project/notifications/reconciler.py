"""The outbox row answers for its effect, not for the broker (rule 7): what was published and never heard of is published again."""

import structlog
from django.db import transaction

from shared_events.outbox.models import OutboxEvent
from shared_events.outbox.wakeup import WakeUp
from shared_events.runtime.crash_points import CrashPoint, reach

from .cancellation import CREATED
from .models import Notification

BATCH = 500

log = structlog.get_logger(__name__)


class Reconciler:
    """Asks again after notifications whose `reconcile_at` lies `after_seconds` back."""

    def __init__(self, *, after_seconds: float, wake_up: WakeUp) -> None:
        self._after_seconds = after_seconds
        self._wake_up = wake_up

    def run_once(self) -> int:
        """Handles up to 500 and returns how many; those whose event is not published yet are only put off, lest they block the head."""
        with transaction.atomic():
            silent = Notification.objects.due_for_reconciling(self._after_seconds).select_for_update(skip_locked=True)
            ids = list(silent.values_list("pk", flat=True)[:BATCH])
            if not ids:
                return 0
            events = OutboxEvent.objects.filter(
                aggregate_id__in=ids, event_type=CREATED, status=OutboxEvent.Status.PUBLISHED
            )
            published = [key for key in events.values_list("aggregate_id", flat=True) if key is not None]
            again = OutboxEvent.objects.filter(aggregate_id__in=published, event_type=CREATED).publish_again()
            Notification.objects.filter(pk__in=published).put_off(self._after_seconds)
            Notification.objects.filter(pk__in=set(ids) - set(published)).ask_again_later()
            reach(CrashPoint.RECONCILE_UNCOMMITTED)
        reach(CrashPoint.RECONCILE_COMMITTED)
        if again:
            self._wake_up.ring()
        log.warning("nothing was heard of notifications", notifications=len(ids), published_again=again)
        return len(ids)
