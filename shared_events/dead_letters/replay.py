"""Replaying dead letters: judged first, guarded, audited, harmless when two operators click at once."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import structlog
from django.conf import settings
from django.db import models, transaction
from django.utils.module_loading import import_string

from shared_events.contracts.events import UnreadableEventError, decode
from shared_events.kafka.consumer import Record
from shared_events.runtime.crash_points import CrashPoint, reach
from shared_events.runtime.database import is_passing

from .models import AuditEntry, DeadLetter

RELEASE_BATCH = 100
RELEASED_CLASSES = ("newer_schema", "unknown_type")

log = structlog.get_logger(__name__)


class Verdict(models.TextChoices):
    """What a replay would do, or did, with a dead letter. Only REPLAY changes anything."""

    REPLAY = "replay", "would be processed again"
    DONE = "done", "was replayed or dismissed before"
    ALREADY_SENT = "already_sent", "was sent meanwhile"
    EXPIRED = "expired", "its send_before has passed"
    UNCERTAIN = "uncertain", "may have arrived: resolve it instead"
    CANCELLED = "cancelled", "was cancelled"
    SUPERSEDED = "superseded", "went on another way since"
    TOO_OLD = "too_old", "older than the retention that would know a second copy"
    UNREADABLE = "unreadable", "still cannot be read"
    FAILED_AGAIN = "failed_again", "failed again: see the log"

    @property
    def outcome(self) -> str:
        """What the replay did, in words."""
        return "replayed" if self is Verdict.REPLAY else str(self.label)


class SupersededError(Exception):
    """Somebody was faster: the transaction of the replay is rolled back."""


class Replayer(Protocol):
    """A project's half: what became of the letter's notification, and how it is processed again."""

    def judge(self, letters: Sequence[DeadLetter]) -> dict[UUID, Verdict]:
        """A verdict for each letter by its id, without a change. A constant number of queries."""

    def replay(self, letter: DeadLetter) -> None:
        """Processes it again, inside the caller's transaction. SupersededError where it is not what it was when it was judged."""

    def done(self) -> None:
        """Called after commits: wakes who has work now."""


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants it, and why."""

    operator: str
    reason: str


def replayer_from_settings() -> Replayer:
    replayer: Replayer = import_string(settings.DEAD_LETTER_REPLAYER)()
    return replayer


def judge(letters: Sequence[DeadLetter], replayer: Replayer) -> dict[UUID, Verdict]:
    """What a replay would do to each letter now."""
    open_letters = [letter for letter in letters if letter.is_open]
    verdicts = replayer.judge(open_letters) if open_letters else {}
    return {letter.pk: verdicts.get(letter.pk, Verdict.DONE) for letter in letters}


def replay(
    letters: Sequence[DeadLetter],
    replayer: Replayer,
    order: Order,
    *,
    per_second: float = 0,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterable[tuple[DeadLetter, Verdict]]:
    """Replays each letter that its verdict allows and yields what it did; a transaction each, at most `per_second` (0: no limit)."""
    verdicts = judge(letters, replayer)
    try:
        for letter in letters:
            verdict = verdicts[letter.pk]
            if verdict is Verdict.REPLAY:
                verdict = _replay_one(letter, replayer, order)
                if per_second:
                    sleep(1 / per_second)
            yield letter, verdict
    finally:
        replayer.done()


def _replay_one(letter: DeadLetter, replayer: Replayer, order: Order) -> Verdict:
    try:
        with transaction.atomic():
            if not DeadLetter.objects.filter(pk=letter.pk).mark_replayed():
                return Verdict.DONE
            replayer.replay(letter)
            _audit(AuditEntry.Action.REPLAY, letter, order)
            reach(CrashPoint.REPLAY_UNCOMMITTED)
        reach(CrashPoint.REPLAY_COMMITTED)
    except SupersededError:
        return Verdict.SUPERSEDED
    except Exception as error:
        if is_passing(error):
            raise
        log.exception("dead letter failed again", dead_letter_id=str(letter.pk))
        return Verdict.FAILED_AGAIN
    log.info("dead letter replayed", dead_letter_id=str(letter.pk), notification_id=str(letter.notification_id))
    return Verdict.REPLAY


def dismiss(letters: Sequence[DeadLetter], order: Order) -> int:
    """Says of each open letter that nothing is to be done; returns how many those were."""
    dismissed = 0
    for letter in letters:
        with transaction.atomic():
            if DeadLetter.objects.filter(pk=letter.pk).mark_dismissed():
                _audit(AuditEntry.Action.DISMISS, letter, order)
                dismissed += 1
    return dismissed


def _audit(action: AuditEntry.Action, letter: DeadLetter, order: Order) -> None:
    AuditEntry.objects.create(
        action=action,
        operator=order.operator[:150],
        subject_id=letter.pk,
        reason=order.reason[:500],
        detail=letter.letter_class,
    )


def record_of(letter: DeadLetter) -> Record | None:
    """The record as Kafka had it; None for a letter that came from a row."""
    if letter.source_topic is None:
        return None
    return Record(
        topic=letter.source_topic,
        partition=letter.source_partition or 0,
        offset=letter.source_offset or 0,
        timestamp_ms=letter.source_timestamp_ms or 0,
        key=None if letter.source_key is None else bytes(letter.source_key),
        value=None if letter.original is None else bytes(letter.original),
    )


def is_readable(letter: DeadLetter) -> bool:
    """Whether this code can decode the original, which it could not when it became a dead letter."""
    try:
        decode(None if letter.original is None else bytes(letter.original))
    except UnreadableEventError:
        return False
    return True


def release_parked(replayer: Replayer) -> int:
    """Replays what an older version of the code parked (a newer schema, an unknown type) and this one can read; returns how many."""
    parked = DeadLetter.objects.open().filter(letter_class__in=RELEASED_CLASSES)[:RELEASE_BATCH]
    readable = [letter for letter in parked if is_readable(letter)]
    order = Order("release", "the running version can read it")
    return sum(verdict is Verdict.REPLAY for _, verdict in replay(readable, replayer, order))
