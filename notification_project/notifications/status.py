"""What the e-mail service reports, merged into notifications: SENT always wins, otherwise the higher version."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import structlog
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F

from shared_events.contracts.events import (
    AnyStatus,
    EmailDeferred,
    EmailFailed,
    EmailSent,
    EmailUncertain,
    StatusEvent,
    UnreadableEventError,
    decode,
    now,
)
from shared_events.dead_letters.models import DeadLetter, record_dead_letters
from shared_events.dead_letters.writer import unreadable
from shared_events.kafka.consumer import Record
from shared_events.outbox.bulk import per_row
from shared_events.runtime.crash_points import CrashPoint, reach

from .models import A_DAY_SECONDS, Notification
from .recall import Known, is_forgotten, remind

Status = Notification.Status
RACES = 3
RESTORED_PHASE = "restored"
"""Of an uncertain mail whose row is older than what was reported of it."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Batch:
    """Of each notification its reports in their order, the one that weighs most with its record, and the dead letters of the rest."""

    reports: dict[UUID, list[AnyStatus]]
    best: dict[UUID, AnyStatus]
    sources: dict[UUID, Record]
    letters: list[DeadLetter]


class _Merged(NamedTuple):
    """The last report of a batch that was news, and what the notification is after all of them."""

    event: AnyStatus
    known: Known
    attempts: Any


def handle(records: Sequence[Record]) -> None:
    """Commits the effect of each status event, or its dead letter. Raises the database's errors."""
    batch = _read(records)
    for race in range(RACES):
        try:
            _store(batch)
            return
        except IntegrityError:  # another consumer stored the same dead letter meanwhile: look again
            if race == RACES - 1:
                raise


def _read(records: Sequence[Record]) -> _Batch:
    batch = _Batch(defaultdict(list), {}, {}, [])
    for record in records:
        try:
            event = decode(record.value, expected=(StatusEvent,))
        except UnreadableEventError as error:
            batch.letters.append(unreadable(record, error))
            continue
        key = event.notification_id
        if key not in batch.best or _rank(event) > _rank(batch.best[key]):
            batch.best[key], batch.sources[key] = event, record
        batch.reports[key].append(event)
    return batch


def _rank(event: AnyStatus) -> tuple[bool, int]:
    return isinstance(event, EmailSent), event.status_version


def _store(batch: _Batch) -> None:
    with transaction.atomic():
        known = {
            row[0]: Known._make(row)
            for row in Notification.objects.filter(pk__in=list(batch.best))
            .order_by("pk")
            .select_for_update()
            .values_list("pk", "status", "status_version", "generation", "possible_duplicates")
        }
        groups: dict[tuple[str, int], dict[UUID, _Merged]] = defaultdict(dict)
        forgotten = []
        for key, before in known.items():
            merged, is_behind = _follow(before, batch.reports[key])
            if merged:
                groups[merged.known.status, merged.known.status_version][key] = merged
            if is_behind:
                forgotten.append(key)
        for (status, version), rows in groups.items():
            Notification.objects.filter(pk__in=list(rows)).merge(status, version, _values(status, rows))
        if forgotten:
            remind(forgotten)
        orphans = [
            DeadLetter.of_record(
                batch.sources[key],
                letter_class="orphan_status",
                cause="no such notification: a restored backup, perhaps",
                notification_id=key,
            )
            for key in batch.best
            if key not in known
        ]
        recorded = record_dead_letters(
            [*batch.letters, *orphans], topic=settings.DEAD_LETTER_TOPIC, producer=settings.PRODUCER
        )
        reach(CrashPoint.STATUS_UNCOMMITTED)
    reach(CrashPoint.STATUS_COMMITTED)
    log.info(
        "statuses merged", known=len(known), news=sum(len(rows) for rows in groups.values()), dead_letters=recorded
    )


def _follow(known: Known, reports: Sequence[AnyStatus]) -> tuple[_Merged | None, bool]:
    """What the reports of one notification come to, one after the other, however they were grouped into batches: what is to be written
    (None: nothing is news), and whether the e-mail service is to be told what it has forgotten.
    """
    merged, is_behind = None, False
    attempts: Any = F("attempts")
    for event in reports:
        is_behind = is_forgotten(known, event) or is_behind
        if not _is_news(event, known):
            continue
        known = known._replace(
            status=status_of(event),
            status_version=max(known.status_version, event.status_version),
            generation=event.generation,
            possible_duplicates=max(known.possible_duplicates, event.possible_duplicates),
        )
        if not _is_restored(event):
            attempts = msgspec.to_builtins(event.attempts)
        merged = _Merged(event, known, attempts)
    return merged, is_behind


def _is_restored(event: AnyStatus) -> bool:
    """Of a mail that was restored, which knows fewer attempts than were reported before."""
    return isinstance(event, EmailUncertain) and event.uncertain.phase == RESTORED_PHASE


def _is_news(event: AnyStatus, known: Known) -> bool:
    is_newer = event.status_version > known.status_version
    if isinstance(event, EmailSent):
        return is_newer or known.status != Status.SENT
    # A new word of a past generation is a restored database's: it is answered and not believed.
    return is_newer and known.status != Status.SENT and event.generation >= known.generation


def status_of(event: AnyStatus) -> str:
    if isinstance(event, EmailSent):
        return Status.SENT
    if isinstance(event, EmailFailed):
        return Status.FAILED
    return Status.UNCERTAIN if isinstance(event, EmailUncertain) else Status.PENDING


def _values(status: str, rows: dict[UUID, _Merged]) -> dict[str, Any]:
    """The columns of one group: what differs from row to row in one expression each."""
    events = {key: merged.event for key, merged in rows.items()}
    values: dict[str, Any] = {
        "reconciled": 0,
        "ended_at": None,
        "attempts": _each("attempts", {key: merged.attempts for key, merged in rows.items()}),
    }
    for name in ("possible_duplicates", "generation"):
        each = {key: getattr(merged.known, name) for key, merged in rows.items()}
        # mostly 0 in all: then no expression for each row
        values[name] = next(iter(each.values())) if len(set(each.values())) == 1 else _each(name, each)
    if status == Status.SENT:
        sent = {key: event.sent_at for key, event in events.items() if isinstance(event, EmailSent)}
        return {
            **values,
            "sent_at": _each("sent_at", sent),
            "reconcile_at": None,
            "next_attempt_at": None,
            "uncertain": None,
        }
    if status == Status.FAILED:
        failures = {key: event.failure for key, event in events.items() if isinstance(event, EmailFailed)}
        return {
            **values,
            "ended_at": _each("ended_at", {key: event.occurred_at for key, event in events.items()}),
            "failure_class": _each(
                "failure_class", {key: failure.failure_class[:16] for key, failure in failures.items()}
            ),
            "failure_code": _each("failure_code", {key: failure.code[:32] for key, failure in failures.items()}),
            "failure_detail": _each("failure_detail", {key: failure.detail[:500] for key, failure in failures.items()}),
            "reconcile_at": None,
            "next_attempt_at": None,
        }
    if status == Status.UNCERTAIN:
        uncertain = {
            key: msgspec.to_builtins(event.uncertain)
            for key, event in events.items()
            if isinstance(event, EmailUncertain)
        }
        return {
            **values,
            "uncertain": _each("uncertain", uncertain),
            "next_attempt_at": None,
            "reconcile_at": now()
            + timedelta(seconds=A_DAY_SECONDS),  # an operator takes time; a lost answer heals all the same
        }
    due = {key: event.next_attempt_at if isinstance(event, EmailDeferred) else None for key, event in events.items()}
    return {
        **values,
        "next_attempt_at": _each("next_attempt_at", due),
        "reconcile_at": _each("reconcile_at", {key: instant or now() for key, instant in due.items()}),
        "uncertain": None,
    }


def _each(name: str, values: dict[UUID, Any]) -> Any:
    return per_row(Notification._meta.get_field(name), values)  # type: ignore[arg-type]  # noqa: SLF001
