"""The relay: claim, commit, publish, settle (rule 2 of delivery). Any number of them may run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import F

from shared_events.contracts.topics import PUBLICATION_HEADER
from shared_events.kafka.producer import Fault, OutgoingRecord, RecordProducer, Report
from shared_events.runtime.backoff import row_wait_seconds
from shared_events.runtime.breaker import CircuitBreaker

from .claim import POISON_CRASHES, claim_due, new_lease_token
from .models import OutboxEvent

CONFIGURATION_HOLD_SECONDS = 15.0

log = structlog.get_logger(__name__)

Unpublishable = Callable[[Sequence[tuple[UUID, str]]], None]
"""Called inside the settling transaction with (event id, reason) of each event that is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayPolicy:
    batch: int
    lease_seconds: float
    max_attempts: int
    retry_base_seconds: float
    retry_max_seconds: float


@dataclass(frozen=True, slots=True)
class ClaimedEvent:
    id: UUID
    aggregate_id: UUID | None
    topic: str
    message_key: bytes | None
    payload: bytes
    publication: int
    retry_count: int
    crashes: int

    def as_record(self) -> OutgoingRecord:
        key = (
            self.message_key
            if self.message_key is not None or self.aggregate_id is None
            else str(self.aggregate_id).encode()
        )
        headers: list[tuple[str, str | bytes | None]] = []
        if self.publication > 1:
            headers.append((PUBLICATION_HEADER, str(self.publication).encode()))
        return OutgoingRecord(self.topic, key, self.payload, headers)


class OutboxRelay:
    """Publishes what is due in `outbox_events`. `give_up` ends a publish that waits for its broker, so that a stop is prompt."""

    FIELDS = ("id", "aggregate_id", "topic", "message_key", "payload", "publication", "retry_count", "crashes")

    def __init__(
        self,
        producer: RecordProducer,
        policy: RelayPolicy,
        *,
        unpublishable: Unpublishable,
        breaker: CircuitBreaker,
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._producer = producer
        self._policy = policy
        self._unpublishable = unpublishable
        self._breaker = breaker
        self._give_up = give_up
        self._suspect_topics: set[str] = set()

    def run_once(self) -> int:
        """Publishes one batch and returns how many events it claimed; 0 where none is due or the broker is away (then it claims none)."""
        if not self._broker_is_there():
            return 0
        token = new_lease_token()
        claimed = self._claim(token)
        if not claimed:
            return 0
        healthy = [event for event in claimed if event.crashes < POISON_CRASHES]
        reports = self._producer.publish([event.as_record() for event in healthy], give_up=self._give_up)
        self._settle(token, claimed, dict(zip((event.id for event in healthy), reports, strict=True)))
        self._judge_broker(healthy, reports)
        return len(claimed)

    def _claim(self, token: int) -> list[ClaimedEvent]:
        rows = claim_due(
            OutboxEvent,
            self.FIELDS,
            batch=self._policy.batch,
            lease_seconds=self._policy.lease_seconds,
            token=token,
            claims=F("claims") + 1,
        )
        return [ClaimedEvent(*row) for row in rows]

    def _settle(self, token: int, claimed: Sequence[ClaimedEvent], reports: dict[UUID, Report]) -> None:
        poison = Report(Fault.MESSAGE, "claimed too often without an outcome")
        published, released, failed = [], [], []
        for event in claimed:
            report = reports.get(event.id, poison)
            if report.fault is None:
                published.append(event.id)
            elif report.fault is Fault.MESSAGE:
                failed.append((event, report.reason))
            else:
                released.append(event.id)
        held = OutboxEvent.objects.held_by
        with transaction.atomic():
            settled = held(token, published).mark_published() if published else 0
            settled += held(token, released).release() if released else 0
            settled += self._settle_failed(token, failed) if failed else 0
        if settled != len(claimed):
            log.warning("lease lost", rows=len(claimed) - settled)
        log.info("batch published", published=len(published), released=len(released), failed=len(failed))

    def _settle_failed(self, token: int, failed: Sequence[tuple[ClaimedEvent, str]]) -> int:
        settled = 0
        given_up = []
        for event, reason in failed:
            held = OutboxEvent.objects.held_by(token, [event.id])
            attempts = event.retry_count + 1
            if attempts < self._policy.max_attempts and event.crashes < POISON_CRASHES:
                wait_seconds = row_wait_seconds(
                    attempts,
                    base_seconds=self._policy.retry_base_seconds,
                    maximum_seconds=self._policy.retry_max_seconds,
                )
                settled += held.mark_failed(reason, wait_seconds)
            elif held.mark_dead_lettered(reason):
                settled += 1
                given_up.append((event.id, reason))
                log.error(
                    "event given up", event_id=str(event.id), notification_id=str(event.aggregate_id), reason=reason
                )
        if given_up:
            self._unpublishable(given_up)
        return settled

    def _broker_is_there(self) -> bool:
        if self._breaker.is_closed:
            return True
        if not self._breaker.allow():
            return False
        reason = self._producer.probe(self._suspect_topics)
        if reason is None:
            self._suspect_topics.clear()
            self._breaker.success()
            return True
        self._breaker.failure(reason, hold_seconds=CONFIGURATION_HOLD_SECONDS if self._suspect_topics else None)
        return False

    def _judge_broker(self, events: Sequence[ClaimedEvent], reports: Sequence[Report]) -> None:
        if self._give_up():
            return  # what was purged says nothing about the broker
        for event, report in zip(events, reports, strict=True):
            if report.fault is Fault.CONFIGURATION:
                self._suspect_topics.add(event.topic)
                self._breaker.failure(report.reason, hold_seconds=CONFIGURATION_HOLD_SECONDS)
                return
        unanswered = next((report for report in reports if report.fault is Fault.DEPENDENCY), None)
        if unanswered is not None:
            self._breaker.failure(unanswered.reason)
