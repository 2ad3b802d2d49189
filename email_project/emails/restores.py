"""After this database was restored from a backup: what nobody can know any more is said, and nothing is sent by itself."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Greatest, Now

from shared_events.contracts.topics import NOTIFICATION_STATUS
from shared_events.outbox.models import OutboxEvent

from .models import RESTORED_PHASE, Restore, SentEmail
from .reports import report_of

BATCH = 1_000
FLOOR_COUNTS_FROM = datetime(2025, 1, 1, tzinfo=UTC)

Status = SentEmail.Status

log = structlog.get_logger(__name__)


def begin(consumed: Mapping[int, int]) -> Restore:
    """Stores that the database was restored just now; `consumed` is what `consumed_offsets` found.

    The floor counts seconds, so that it rises from restore to restore even where the row of an earlier one is not in the backup.
    """
    with transaction.atomic():
        before = Restore.objects.order_by("pk").last()
        restore: Restore = Restore.objects.create(
            restored_at=Now(), floor=0, consumed={str(partition): offset for partition, offset in consumed.items()}
        )
        restore.refresh_from_db()
        seconds = int((restore.restored_at - FLOOR_COUNTS_FROM).total_seconds())
        restore.floor = max(seconds, before.floor + 1 if before else 1)
        restore.save(update_fields=["floor"])
    return restore


def carry_over(restore: Restore, *, batch: int = BATCH) -> tuple[int, int, int]:
    """Takes every mail above the floor and holds what was open; returns how many mails were seen, held and reported.

    A transaction for each `batch` in the order of the key; done again after an interruption it does no harm. Uncertain and failed mails
    are reported, since the notification service may know more of them, and answers so.
    """
    seen = held = reported = 0
    for first, last in _ranges(batch):
        rows = SentEmail.objects.filter(pk__gte=first, pk__lte=last)
        with transaction.atomic():
            held_here, reported_here, seen_here = _carry_over(rows, restore)
        seen, held, reported = seen + seen_here, held + held_here, reported + reported_here
    log.warning("restored database carried over", restore=restore.pk, mails=seen, held=held, reported=reported)
    return seen, held, reported


def _ranges(batch: int) -> Iterator[tuple[UUID, UUID]]:
    rows = SentEmail.objects.order_by("pk").values_list("pk", flat=True)
    ids = list(rows[:batch])
    while ids:
        yield ids[0], ids[-1]
        ids = list(rows.filter(pk__gt=ids[-1])[:batch])


def _carry_over(rows: "QuerySet[SentEmail]", restore: Restore) -> tuple[int, int, int]:
    version = {"status_version": _above("status_version", restore)}
    generation = {"generation": _above("generation", restore)}  # what an operator said of it before holds no more
    settled = rows.filter(status__in=(Status.SENT, Status.FAILED)).update(**version)
    uncertain = rows.filter(status=Status.UNCERTAIN).update(**version, **generation)
    held = rows.filter(status__in=SentEmail.OPEN).update(
        **version,
        **generation,
        status=Status.UNCERTAIN,
        due_at=None,
        lease_token=0,
        crashes=0,
        data_started_at=None,
        settled_at=Now(),
        uncertain_phase=RESTORED_PHASE,
        uncertain_since=restore.restored_at,
        uncertain_host="",
    )
    told = rows.filter(status__in=(Status.UNCERTAIN, Status.FAILED)).defer("message", "html")
    reports = [OutboxEvent.of(report_of(mail), NOTIFICATION_STATUS) for mail in told]
    OutboxEvent.objects.bulk_create(reports)
    return held, len(reports), settled + uncertain + held


def _above(name: str, restore: Restore) -> Any:
    return Greatest(F(name) + 1, restore.floor)
