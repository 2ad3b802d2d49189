"""The claim: how workers take rows that are due, without a lock that outlives a statement or two and without ever sharing one."""

import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db import models, transaction
from django.db.models import F
from django.db.models.functions import Now

from shared_events.runtime.crash_points import CrashPoint, reach

POISON_CRASHES = 20
"""A row that was claimed so often without being settled or released ends its workers, and becomes a dead letter."""


def new_lease_token() -> int:
    """A fencing token that no other worker has: settling filters on it. 0 is nobody's."""
    return secrets.randbits(62) + 1


def in_seconds(seconds: float) -> Any:
    """A time from now by the database's clock, as an expression."""
    return Now() + timedelta(seconds=seconds)


def claim_due(
    model: type[models.Model], fields: Sequence[Any], *, batch: int, lease_seconds: float, token: int, **also: Any
) -> list[tuple[Any, ...]]:
    """Up to `batch` rows that are due, oldest first, leased under `token`: tuples of `fields` (names or expressions, the key first).

    `due_at` is the only predicate and, with the primary key, the only order: any other makes a filesort, which locks every due row,
    and the second worker gets none. `crashes` counts the claim; `also` may count more. Two statements, one commit.
    """
    manager = model._default_manager  # noqa: SLF001
    with transaction.atomic():
        rows = list(
            manager.filter(due_at__lte=Now())
            .order_by("due_at", "pk")
            .select_for_update(skip_locked=True)
            .values_list(*fields)[:batch]
        )
        if rows:
            manager.filter(pk__in=[row[0] for row in rows]).update(
                due_at=in_seconds(lease_seconds), lease_token=token, crashes=F("crashes") + 1, **also
            )
            reach(CrashPoint.CLAIM_UNCOMMITTED)
    if rows:
        reach(CrashPoint.CLAIM_COMMITTED)
    return rows
