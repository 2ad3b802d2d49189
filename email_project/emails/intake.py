"""Intake: notifications from Kafka become rows of `sent_emails`, each once. It never waits for SMTP."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Protocol
from uuid import UUID

import structlog
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from shared_events.contracts import topics
from shared_events.contracts.events import (
    AnyStatus,
    EmailNotificationCreated,
    EmailResolutionRequested,
    EmailStatusKnown,
    UnreadableEventError,
    decode,
    now,
)
from shared_events.dead_letters.models import DeadLetter, record_dead_letters
from shared_events.dead_letters.writer import unreadable
from shared_events.kafka.consumer import Record
from shared_events.outbox.claim import in_seconds
from shared_events.outbox.models import OutboxEvent
from shared_events.runtime.crash_points import CrashPoint, reach

from .delivery import Delivery
from .message import message_id_for
from .models import RESTORED_PHASE, Restore, SentEmail
from .recall import recall
from .reports import report_of
from .resolution import resolve

RACES = 3
DUE: dict[str, Any] = {"due_at": Now()}
EXPECTED = (EmailNotificationCreated, EmailResolutionRequested, EmailStatusKnown)
CLOCK_SKEW = timedelta(minutes=1)
"""So much may the clocks differ that say when a notification was accepted and when this database was restored."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Batch:
    """What a batch of records asks for: notifications by id (the first event of each), those published again, and what cannot be read."""

    wanted: dict[UUID, EmailNotificationCreated]
    published_again: set[UUID]
    letters: list[DeadLetter]
    records: dict[UUID, Record]
    resolutions: list[EmailResolutionRequested]
    recalled: list[EmailStatusKnown]


class Pool(Protocol):
    """Where new mails may go straight to sending: an EmailSender, or none."""

    token: int
    lease_seconds: float

    def room(self) -> int: ...

    def accept(self, deliveries: Sequence[Delivery]) -> None: ...

    def claim_soon(self) -> None: ...


class NoPool:
    """For an intake outside of the workers: every mail is due now, for whoever has room."""

    token = 0
    lease_seconds = 0.0

    def room(self) -> int:
        return 0

    def accept(self, deliveries: Sequence[Delivery]) -> None:
        """Nothing is ever handed over where there is no room."""

    def claim_soon(self) -> None:
        """Nobody here claims."""


class Intake:
    """`handle` is the consumer loop's: one transaction of at most four statements for a batch without dead letters."""

    def __init__(self, sender: Pool, *, ring: Callable[[], None]) -> None:
        self._sender = sender
        self._ring = ring
        self._too_old_after = timedelta(days=settings.SENT_EMAILS_RETENTION_DAYS / 2)

    @cached_property
    def restore(self) -> Restore | None:
        """The last restore of this database. Read once: workers are started after it."""
        restore: Restore | None = Restore.objects.order_by("pk").last()
        return restore

    @property
    def _floor(self) -> int:
        return self.restore.floor if self.restore else 0

    def handle(self, records: Sequence[Record]) -> None:
        """Commits the effect of each record, or its dead letter. Raises the database's errors."""
        batch = self._read(records)
        for race in range(RACES):
            try:
                self._store(batch)
                return
            except IntegrityError:
                # Another consumer stored one of them between our look and our insert: look again.
                if race == RACES - 1:
                    raise

    def _read(self, records: Sequence[Record]) -> _Batch:
        batch = _Batch({}, set(), [], {}, [], [])
        for record in records:
            try:
                event = decode(record.value, expected=EXPECTED)
            except UnreadableEventError as error:
                batch.letters.append(unreadable(record, error))
                continue
            if isinstance(event, EmailResolutionRequested):
                batch.resolutions.append(event)
                continue
            if isinstance(event, EmailStatusKnown):
                batch.recalled.append(event)
                continue
            batch.wanted.setdefault(event.notification_id, event)
            batch.records.setdefault(event.notification_id, record)
            if record.publication > 1:
                batch.published_again.add(event.notification_id)
        return batch

    def _store(self, batch: _Batch) -> None:
        leased_until = time.monotonic() + self._sender.lease_seconds
        with transaction.atomic():
            known = (
                set(SentEmail.objects.filter(pk__in=list(batch.wanted)).values_list("pk", flat=True))
                if batch.wanted
                else set()
            )
            too_old = {
                event.notification_id
                for event in batch.wanted.values()
                if event.notification_id not in known and self._is_too_old(event)
            }
            unsure = {
                key
                for key, event in batch.wanted.items()
                if key not in known and key not in too_old and self._may_be_forgotten(event, batch.records[key])
            }
            held_ids = too_old | unsure
            fresh = [event for key, event in batch.wanted.items() if key not in known and key not in held_ids]
            room = self._sender.room()
            mails = [self._row(event, self._lease(event) if index < room else DUE) for index, event in enumerate(fresh)]
            held = [self._row(batch.wanted[key], held_state("unknown", self._floor)) for key in too_old]
            held += [self._row(batch.wanted[key], held_state(RESTORED_PHASE, self._floor)) for key in unsure]
            SentEmail.objects.bulk_create([*mails, *held])
            reports = [*self._answers(known & batch.published_again), *(report_of(mail) for mail in held)]
            reports += recall(batch.recalled) if batch.recalled else []
            reports += resolve(batch.resolutions) if batch.resolutions else []
            OutboxEvent.objects.bulk_create([OutboxEvent.of(report, topics.NOTIFICATION_STATUS) for report in reports])
            letters = [*batch.letters, *(self._too_old_letter(batch.records[key], key) for key in too_old)]
            record_dead_letters(letters, topic=settings.DEAD_LETTER_TOPIC, producer=settings.PRODUCER)
            reach(CrashPoint.INTAKE_UNCOMMITTED)
        reach(CrashPoint.INTAKE_COMMITTED)
        self._sender.accept([Delivery.of_mail(mail, leased_until=leased_until) for mail in mails[:room]])
        if len(mails) > room or batch.resolutions:
            self._sender.claim_soon()
        if reports or letters:
            self._ring()
        log.info("records taken in", new=len(mails), known=len(known), held=len(held), dead_letters=len(letters))

    def _is_too_old(self, event: EmailNotificationCreated) -> bool:
        """Older than half of the retention, an unknown id may have been sent and pruned."""
        return now() - max(event.created_at, event.send_after or event.created_at) > self._too_old_after

    def _may_be_forgotten(self, event: EmailNotificationCreated, record: Record) -> bool:
        """Whether an unknown id may have been taken in, and sent, before this database was restored from a backup without it.

        What was only waiting in Kafka was not: it comes for the first time, from where nothing was consumed yet.
        """
        if self.restore is None or event.created_at >= self.restore.restored_at + CLOCK_SKEW:
            return False
        return record.publication > 1 or self.restore.may_have_been_consumed(record.partition, record.offset)

    def _lease(self, event: EmailNotificationCreated) -> dict[str, Any]:
        """Leased by this process with its insert, and marked unless it is to be held when uncertain."""
        marked = Now() if event.on_uncertain == SentEmail.OnUncertain.RESEND.value else None
        return {
            "due_at": in_seconds(self._sender.lease_seconds),
            "lease_token": self._sender.token,
            "crashes": 1,
            "data_started_at": marked,
        }

    def _row(self, event: EmailNotificationCreated, state: dict[str, Any]) -> SentEmail:
        received_at = now()
        return SentEmail(
            id=event.notification_id,
            event_id=event.event_id,
            created_at=event.created_at,
            received_at=received_at,
            send_after=event.send_after,
            send_before=event.send_before,
            on_uncertain=event.on_uncertain,
            message_id=message_id_for(event.notification_id, settings.DEFAULT_FROM_EMAIL),
            dated_at=received_at.replace(microsecond=0),
            sender=settings.DEFAULT_FROM_EMAIL,
            recipient=event.recipient,
            subject=event.subject,
            message=event.message,
            html=event.html,
            reply_to=event.reply_to,
            **{"status_version": self._floor, **state},
        )

    def _answers(self, known: set[UUID]) -> list[AnyStatus]:
        """What is known of those that were asked for again; Kafka's own redeliveries stay silent."""
        return [report_of(mail) for mail in SentEmail.objects.filter(pk__in=known)] if known else []

    def _too_old_letter(self, record: Record, notification_id: UUID) -> DeadLetter:
        cause = "older than half of SENT_EMAILS_RETENTION_DAYS: it may have been sent and its row deleted since"
        letter = DeadLetter.of_record(record, letter_class="too_old", cause=cause, notification_id=notification_id)
        letter.identity = DeadLetter.identity_of(notification_id, "too_old")  # however often it is asked for again
        return letter


def held_state(phase: str, floor: int) -> dict[str, Any]:
    """UNCERTAIN from the first: it may have been sent and its row be gone since, so only an operator can say."""
    return {
        "due_at": None,
        "status": SentEmail.Status.UNCERTAIN,
        "status_version": floor + 1,
        "generation": floor,
        "uncertain_phase": phase,
        "uncertain_since": now(),
    }
