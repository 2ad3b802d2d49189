"""What must hold in the tables at any moment, as queries for rows that break it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import models
from django.db.models import Case, Count, Q, Value, When

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


@dataclass(frozen=True, slots=True)
class Step:
    """Where a row of the service's main table is: a final state, or a step that will take it on. The first that fits is its step."""

    words: str
    holds: Q


def count_by_step(rows: models.QuerySet[Any], steps: Sequence[Step]) -> tuple[list[tuple[str, int]], int]:
    """How many rows are in each step, in the order of `steps`, and how many are in none: those nobody would ever take on. One query."""
    whens = [When(step.holds, then=Value(number)) for number, step in enumerate(steps)]
    in_step = rows.annotate(step=Case(*whens, default=Value(-1), output_field=models.IntegerField()))
    found = dict(in_step.order_by().values_list("step").annotate(Count("pk")))
    return [(step.words, found.get(number, 0)) for number, step in enumerate(steps)], found.get(-1, 0)


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
