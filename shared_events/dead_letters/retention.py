"""Deleting what is final, confirmed and older than its retention: in small batches, never a failure that nobody replayed or dismissed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import models, transaction

from shared_events.contracts.events import id_at, now

from .models import DeadLetter

BATCH = 1_000


@dataclass(frozen=True, slots=True)
class PruneRule:
    """`rows` gives what may go now; `order` is its index: `pk` where ids are made in the order of time."""

    name: str
    rows: Callable[[], models.QuerySet[Any]]
    order: str = "pk"


def older_than(days: float) -> UUID:
    """The id that separates rows by their age: UUIDv7s are made in the order of time."""
    return id_at(older_time(days))


def older_time(days: float) -> datetime:
    return now() - timedelta(days=days)


def prune(rule: PruneRule, *, batch: int = BATCH) -> Iterator[int]:
    """Deletes batch by batch, each in a transaction of its own, and yields how many rows each had."""
    last = None
    while True:
        rows = rule.rows().order_by(rule.order)
        if last is not None and rule.order == "pk":
            rows = rows.filter(pk__gt=last)
        ids = list(rows.values_list("pk", flat=True)[:batch])
        if not ids:
            return
        with transaction.atomic():
            deleted, _ = rows.model._default_manager.filter(pk__in=ids).delete()  # noqa: SLF001
        last = ids[-1]
        yield deleted


DEAD_LETTERS = PruneRule(
    "dead_letters",
    lambda: DeadLetter.objects.filter(pk__lt=older_than(settings.DEAD_LETTERS_RETENTION_DAYS)).exclude(
        replayed_at=None, dismissed_at=None
    ),
)
