"""Accepting notifications: idempotency row, notification and outbox event in one transaction, and the answer after it (rule 1)."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, IntegrityError, InterfaceError, transaction
from rest_framework.exceptions import APIException, ErrorDetail, ValidationError

from shared_events.contracts.events import EmailNotificationCreated, new_id, now
from shared_events.contracts.topics import NOTIFICATION_EVENTS
from shared_events.outbox.models import OutboxEvent
from shared_events.runtime import database
from shared_events.runtime.crash_points import CrashPoint, reach
from shared_events.service.problems import database_away

from . import idempotency, problems
from .idempotency import Key, KeyStore, StoredAnswer
from .limits import Count, Usage
from .models import ApiClient, IdempotencyKey, Notification, first_due_at

EVENT_BYTES = 900_000
FURTHEST_SEND_AFTER = timedelta(days=366)
STATEMENT_BYTES = 8 * 1024 * 1024  # half of MariaDB's max_allowed_packet of 16 MiB
TRIES = 3
AGE_CHECK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer of a POST; `usage` is the tightest limit where it was executed and not replayed."""

    answer: StoredAnswer
    replayed: bool
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One POST: validated items, their key (None without one), the fingerprint of the body, and how its answer is rendered."""

    client: ApiClient
    items: Sequence[dict[str, Any]]
    is_batch: bool
    key: Key | None
    fingerprint: bytes
    render: Callable[[Sequence[Notification]], tuple[str, bytes]]
    count: Count


def in_statements(
    rows: Sequence[tuple[Notification, OutboxEvent]],
) -> Iterator[Sequence[tuple[Notification, OutboxEvent]]]:
    """The rows in as few parts as fit into a statement each: nearly always one."""
    begin, size = 0, 0
    for index, (notification, event) in enumerate(rows):
        characters = sum(len(name) + len(value) for name, value in notification.metadata.items())
        # The most that SQL can make of them: four bytes of a quote in the payload, fourteen of an emoji in metadata.
        row_size = max(2 * len(event.payload), 14 * characters)
        if size + row_size > STATEMENT_BYTES and index > begin:
            yield rows[begin:index]
            begin, size = index, 0
        size += row_size
    yield rows[begin:]


class Acceptance:
    """Executes submissions. One object serves all requests of a process."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._age_lock = threading.Lock()
        self._age_checked_at = -AGE_CHECK_SECONDS
        self._too_old = False

    def submit(self, submission: Submission) -> Accepted:
        """Answers from the key's first execution, or executes. Raises Problem and ValidationError; then no key is consumed."""
        key = submission.key
        if key is None:
            return self._execute(submission)
        ours, answer = self._store.begin(key)
        if answer is None and not ours:
            answer = idempotency.stored_answer(key)
            if answer is None:
                raise problems.in_progress()
        if answer is not None:
            return Accepted(answer.check(submission.fingerprint), replayed=True)
        try:
            return self._execute(submission)
        except BaseException:
            self._store.forget(key)
            raise

    def _execute(self, submission: Submission) -> Accepted:
        try:
            try:
                rows = self._admit(submission)
            except (
                APIException
            ):  # a replay is refused by nothing, and without Redis only the row knows that this is one
                known = idempotency.stored_answer(submission.key) if submission.key else None
                if known is None:
                    raise
                submission.count.give_back()
                return self._replay(submission, known)
            return self._store_rows(submission, rows)
        except BaseException:
            submission.count.give_back()
            raise

    def _admit(self, submission: Submission) -> list[tuple[Notification, OutboxEvent]]:
        """The rows to store; raises the refusals that do not come from the body alone."""
        submission.count.take()
        self._refuse_while_outbox_is_old()
        rows = [self._rows(submission.client, item) for item in submission.items]
        self._check(submission, rows)
        return rows

    def _replay(self, submission: Submission, answer: StoredAnswer) -> Accepted:
        answer.check(submission.fingerprint)
        self._store.finish(submission.key, answer, ring=False)
        return Accepted(answer, replayed=True)

    def _store_rows(self, submission: Submission, rows: Sequence[tuple[Notification, OutboxEvent]]) -> Accepted:
        location, body = submission.render([notification for notification, _ in rows])
        key_row = None
        answer = StoredAnswer(submission.fingerprint, 202, location, body, 0.0)
        if submission.key is not None:
            key_row = idempotency.new_row(
                submission.key, submission.fingerprint, status_code=202, location=location, body=body
            )
            answer = StoredAnswer(submission.fingerprint, 202, location, body, key_row.expires_at.timestamp())
        take_over = False
        for attempt in range(1, TRIES + 1):
            try:
                self._transaction(key_row, rows, take_over=take_over)
                break
            except IntegrityError:
                known = idempotency.stored_answer(submission.key) if submission.key else None
                if known is not None:
                    submission.count.give_back()
                    return self._replay(submission, known)
                if submission.key is None or attempt == TRIES:
                    raise
                take_over = not take_over  # the row has expired, or its transaction was rolled back
            except DatabaseError as error:
                self._judge(error, attempt, with_key=submission.key is not None)
        reach(CrashPoint.ACCEPTANCE_COMMITTED)
        self._store.finish(submission.key, answer if key_row else None, ring=True)
        reach(CrashPoint.ANSWER_CACHED)
        return Accepted(answer, replayed=False, usage=submission.count.tightest)

    def _transaction(
        self,
        key_row: IdempotencyKey | None,
        rows: Sequence[tuple[Notification, OutboxEvent]],
        *,
        take_over: bool,
    ) -> None:
        committing = False
        try:
            with transaction.atomic():
                if key_row is not None and not (take_over and idempotency.take_over(key_row)):
                    key_row.save(force_insert=True)
                for part in in_statements(rows):
                    Notification.objects.bulk_create([notification for notification, _ in part])
                    OutboxEvent.objects.bulk_create([event for _, event in part])
                reach(CrashPoint.ACCEPTANCE_UNCOMMITTED)
                committing = True
        except (DatabaseError, InterfaceError) as error:
            if committing and database.is_connection_lost(error):
                raise problems.outcome_unknown(with_key=key_row is not None) from error
            raise

    def _judge(self, error: DatabaseError, attempt: int, *, with_key: bool) -> None:
        """Returns where the whole transaction may be tried again, else raises the Problem, or the error where it is a defect."""
        if database.is_deadlock(error):
            if attempt == TRIES:
                raise problems.busy() from error
            time.sleep(random.uniform(0.005, 0.05))  # noqa: S311
            return
        if database.is_lock_timeout(error):
            raise (problems.in_progress() if with_key else problems.busy()) from error
        if database.is_passing(error):
            raise database_away() from error
        raise error

    def _rows(self, client: ApiClient, item: dict[str, Any]) -> tuple[Notification, OutboxEvent]:
        created_at = now()
        notification = Notification(
            id=new_id(),
            client_id=client.pk,
            recipient=item["recipient"],
            subject=item["subject"],
            client_reference=item["client_reference"],
            metadata=item["metadata"],
            created_at=created_at,
            send_after=item["send_after"],
            send_before=item["send_before"],
            on_uncertain=item["on_uncertain"],
            reconcile_at=first_due_at(created_at, item["send_after"]),
        )
        event = EmailNotificationCreated(
            event_id=new_id(),
            notification_id=notification.pk,
            occurred_at=created_at,
            producer=settings.PRODUCER,
            recipient=item["recipient"],
            subject=item["subject"],
            message=item["message"],
            html=item["html"],
            reply_to=item["reply_to"],
            created_at=created_at,
            send_after=item["send_after"],
            send_before=item["send_before"],
            on_uncertain=item["on_uncertain"],
        )
        # A time that has passed means now: taken literally it would count as the age of the outbox, which refuses every POST.
        later = item["send_after"] if item["send_after"] and item["send_after"] > created_at else None
        return notification, OutboxEvent.of(event, NOTIFICATION_EVENTS, due_at=later)

    def _check(self, submission: Submission, rows: Sequence[tuple[Notification, OutboxEvent]]) -> None:
        """What depends on the time of day or on the encoded event; after the replay, which must not depend on either."""
        errors: dict[int, dict[str, list[ErrorDetail]]] = {}
        for index, (notification, event) in enumerate(rows):
            if notification.send_before is not None and notification.send_before <= notification.created_at:
                errors.setdefault(index, {})["send_before"] = [ErrorDetail("Must not have passed.", code="passed")]
            if (
                notification.send_after is not None
                and notification.send_after > notification.created_at + FURTHEST_SEND_AFTER
            ):
                errors.setdefault(index, {})["send_after"] = [
                    ErrorDetail("Must be within a year from now.", code="too-far")
                ]
            if len(event.payload) > EVENT_BYTES:
                words = f"The encoded event has {len(event.payload)} bytes; at most {EVENT_BYTES} are taken. Shorten message or html."
                errors.setdefault(index, {})["message"] = [ErrorDetail(words, code="too-large")]
        if not errors:
            return
        if not submission.is_batch:
            raise ValidationError(errors[0])
        raise ValidationError({"notifications": {str(index): found for index, found in errors.items()}})

    def _refuse_while_outbox_is_old(self) -> None:
        # Asked once a second and process: the answer changes slowly, and a POST has few statements.
        with self._age_lock:
            ask = time.monotonic() - self._age_checked_at >= AGE_CHECK_SECONDS
            if ask:
                self._age_checked_at = time.monotonic()
        if ask:
            self._too_old = OutboxEvent.objects.overdue(settings.OUTBOX_MAX_AGE_SECONDS).exists()
        if self._too_old:
            raise problems.outbox_too_old(settings.OUTBOX_MAX_AGE_SECONDS)
