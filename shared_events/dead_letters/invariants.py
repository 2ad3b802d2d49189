"""What must hold in the tables at any moment, as queries for rows that break it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import models

from shared_events.outbox.models import OutboxEvent

SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Invariant:
    """A sentence, and the rows for which it is not true."""

    sentence: str
    broken: Callable[[], models.QuerySet[Any]]

    def check(self) -> tuple[int, list[str]]:
        """How many rows break it, and the ids of some."""
        rows = self.broken()
        count = rows.count()
        return count, [str(key) for key in rows.values_list("pk", flat=True)[:SAMPLES]] if count else []


Status = OutboxEvent.Status

OUTBOX = (
    Invariant(
        "every event that is to be published is due",
        lambda: OutboxEvent.objects.filter(status__in=OutboxEvent.PUBLISHABLE, due_at=None),
    ),
    Invariant(
        "no event that is done is due",
        lambda: OutboxEvent.objects.filter(due_at__isnull=False).exclude(status__in=OutboxEvent.PUBLISHABLE),
    ),
    Invariant(
        "every published event has its time",
        lambda: OutboxEvent.objects.filter(status=Status.PUBLISHED, published_at=None),
    ),
)
