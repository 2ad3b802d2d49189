"""What the e-mail service reports, merged into notifications: SENT always wins, otherwise the higher version."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import structlog
from django.conf import settings
from django.db import IntegrityError, transaction

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

Status = Notification.Status
RACES = 3

log = structlog.get_logger(__name__)


def handle(records: Sequence[Record]) -> None:
    """Commits the effect of each status event, or its dead letter. Raises the database's errors."""
    best, sources, letters = _read(records)
    for race in range(RACES):
        try:
            _store(best, sources, letters)
            return
        except IntegrityError:  # another consumer stored the same dead letter meanwhile: look again
            if race == RACES - 1:
                raise


def _read(records: Sequence[Record]) -> tuple[dict[UUID, AnyStatus], dict[UUID, Record], list[DeadLetter]]:
    best: dict[UUID, AnyStatus] = {}
    sources: dict[UUID, Record] = {}
    letters = []
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
            letters.append(
                DeadLetter.of_record(
                    record, letter_class=error.letter_class, cause=error.cause, notification_id=error.notification_id
                )
            )
            continue
        if event.notification_id not in best or _rank(event) > _rank(best[event.notification_id]):
            best[event.notification_id] = event
            sources[event.notification_id] = record
    return best, sources, letters


def _rank(event: AnyStatus) -> tuple[bool, int]:
    return isinstance(event, EmailSent), event.status_version


def _store(best: dict[UUID, AnyStatus], sources: dict[UUID, Record], letters: Sequence[DeadLetter]) -> None:
    with transaction.atomic():
        known = {
            row[0]: row
            for row in Notification.objects.filter(pk__in=list(best))
            .order_by("pk")
            .select_for_update()
            .values_list("pk", "status", "status_version")
        }
        groups: dict[tuple[str, int], dict[UUID, AnyStatus]] = defaultdict(dict)
        for key, event in best.items():
            if key in known and _is_news(event, known[key][1], known[key][2]):
                groups[status_of(event), event.status_version][key] = event
        for (status, version), events in groups.items():
            Notification.objects.filter(pk__in=list(events)).merge(status, version, _values(status, events))
        orphans = [
            DeadLetter.of_record(
                sources[key],
                letter_class="orphan_status",
                cause="no such notification: a restored backup, perhaps",
                notification_id=key,
            )
            for key in best
            if key not in known
        ]
        recorded = record_dead_letters(
            [*letters, *orphans], topic=settings.DEAD_LETTER_TOPIC, producer=settings.PRODUCER
        )
        reach(CrashPoint.STATUS_UNCOMMITTED)
    reach(CrashPoint.STATUS_COMMITTED)
    log.info(
        "statuses merged", known=len(known), news=sum(len(events) for events in groups.values()), dead_letters=recorded
    )


def _is_news(event: AnyStatus, status: str, version: int) -> bool:
    if isinstance(event, EmailSent):
        return status != Status.SENT or event.status_version > version
    return status != Status.SENT and event.status_version > version


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
        "attempts": _each("attempts", {key: msgspec.to_builtins(event.attempts) for key, event in events.items()}),
        "possible_duplicates": _each(
            "possible_duplicates", {key: event.possible_duplicates for key, event in events.items()}
        ),
    }
    for name in ("possible_duplicates", "generation"):  # mostly 0 in all: then no expression for each row
        if len({getattr(event, name) for event in events.values()}) == 1:
            values[name] = getattr(next(iter(events.values())), name)
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


def _each(name: str, values: dict[UUID, Any]) -> Any:
    return per_row(Notification._meta.get_field(name), values)  # type: ignore[arg-type]  # noqa: SLF001
