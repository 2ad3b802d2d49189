"""What the e-mail service reports, merged into notifications: SENT always wins, otherwise the higher version."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import structlog
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.functions import Greatest

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
    """Of each notification the report that weighs most, its record, and the newest one, which shows what the e-mail service has now."""

    best: dict[UUID, AnyStatus]
    sources: dict[UUID, Record]
    latest: dict[UUID, AnyStatus]
    letters: list[DeadLetter]


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
    batch = _Batch({}, {}, {}, [])
    for record in records:
        try:
            event = decode(record.value, expected=(StatusEvent,))
        except UnreadableEventError as error:
            log.error(
                "record cannot be read",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                cause=error.letter_class,
            )
            batch.letters.append(
                DeadLetter.of_record(
                    record, letter_class=error.letter_class, cause=error.cause, notification_id=error.notification_id
                )
            )
            continue
        key = event.notification_id
        if key not in batch.best or _rank(event) > _rank(batch.best[key]):
            batch.best[key], batch.sources[key] = event, record
        if key not in batch.latest or event.status_version > batch.latest[key].status_version:
            batch.latest[key] = event
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
        groups: dict[tuple[str, int], dict[UUID, AnyStatus]] = defaultdict(dict)
        for key, event in batch.best.items():
            if key in known and _is_news(event, known[key]):
                groups[status_of(event), event.status_version][key] = event
        for (status, version), events in groups.items():
            Notification.objects.filter(pk__in=list(events)).merge(status, version, _values(status, events))
        forgotten = [key for key in known if is_forgotten(known[key], batch.best[key], batch.latest[key])]
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
        "statuses merged", known=len(known), news=sum(len(events) for events in groups.values()), dead_letters=recorded
    )


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


def _values(status: str, events: dict[UUID, AnyStatus]) -> dict[str, Any]:
    """The columns of one group: what differs from row to row in one expression each."""
    values: dict[str, Any] = {
        "reconciled": 0,
        "generation": _each("generation", {key: event.generation for key, event in events.items()}),
        "attempts": _each("attempts", {key: _attempts(event) for key, event in events.items()}),
        "possible_duplicates": _each(
            "possible_duplicates", {key: event.possible_duplicates for key, event in events.items()}
        ),
    }
    for name in ("possible_duplicates", "generation"):  # mostly 0 in all: then no expression for each row
        if len({getattr(event, name) for event in events.values()}) == 1:
            values[name] = getattr(next(iter(events.values())), name)
    values["possible_duplicates"] = Greatest(F("possible_duplicates"), values["possible_duplicates"])
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


def _attempts(event: AnyStatus) -> Any:
    """Those that the report carries; a mail that was restored knows fewer than were reported before."""
    if isinstance(event, EmailUncertain) and event.uncertain.phase == RESTORED_PHASE:
        return F("attempts")
    return msgspec.to_builtins(event.attempts)


def _each(name: str, values: dict[UUID, Any]) -> Any:
    return per_row(Notification._meta.get_field(name), values)  # type: ignore[arg-type]  # noqa: SLF001
