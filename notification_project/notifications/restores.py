"""After this database was restored from a backup: the e-mail service knows what happened since, and is asked."""

from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models.functions import Now

from shared_events.outbox.claim import in_seconds
from shared_events.outbox.models import OutboxEvent

from .cancellation import CREATED
from .models import Notification

BATCH = 1_000

Status = Notification.Status

log = structlog.get_logger(__name__)


class Asked(NamedTuple):
    """How many notifications were seen, how many open ones are due for reconciling, how many failed ones are asked after once more, and
    how many events that were due may have been published since the backup.
    """

    seen: int
    open: int
    failed: int
    due: int


def ask_again(*, after_seconds: float, batch: int = BATCH) -> Asked:
    """Makes every open notification due for the reconciler, and publishes again the events of those that FAILED.

    An event that was due since may have been published: it can no longer be cancelled, and goes out as one that is published again, so
    that it is answered where it is known. A transaction for each `batch`; done again after an interruption it does no harm.
    """
    total = Asked(0, 0, 0, 0)
    for ids in _batches(batch):
        with transaction.atomic():
            asked = _ask_again(ids, after_seconds)
        total = Asked(*map(sum, zip(total, asked, strict=True)))
    log.warning("restored database asks again", **total._asdict())
    return total


def _batches(batch: int) -> Iterator[list[UUID]]:
    rows = Notification.objects.order_by("pk").values_list("pk", flat=True)
    ids = list(rows[:batch])
    while ids:
        yield ids
        ids = list(rows.filter(pk__gt=ids[-1])[:batch])


def _ask_again(ids: list[UUID], after_seconds: float) -> Asked:
    rows = Notification.objects.filter(pk__in=ids)
    events = OutboxEvent.objects.filter(event_type=CREATED)
    due = events.filter(aggregate_id__in=ids, due_at__lte=Now()).count_as_published()
    # What is scheduled for later cannot have been published: of that no word is due.
    silent = rows.filter(reconcile_at__isnull=False).exclude(send_after__gt=Now())
    failed = list(rows.filter(status=Status.FAILED).values_list("pk", flat=True))
    return Asked(
        seen=len(ids),
        open=silent.update(reconcile_at=in_seconds(-after_seconds), reconciled=0),
        failed=events.filter(aggregate_id__in=failed).publish_again() if failed else 0,
        due=due,
    )
