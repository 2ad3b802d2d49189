"""The relay: claim, commit, publish, settle (rule 2 of delivery). Any number of them may run."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Length

from shared_events.contracts.topics import PUBLICATION_HEADER
from shared_events.kafka.producer import UNANSWERED, Fault, OutgoingRecord, RecordProducer, Report
from shared_events.runtime.backoff import LoopBackoff, row_wait_seconds
from shared_events.runtime.breaker import CircuitBreaker
from shared_events.runtime.crash_points import CrashPoint, reach
from shared_events.runtime.database import fresh_connections, is_passing

from .claim import POISON_CRASHES, claim_due, new_lease_token
from .models import OutboxEvent

CONFIGURATION_HOLD_SECONDS = 15.0
SUSPECT_CRASHES = 2
SLICE_BYTES = 8 * 1024 * 1024

log = structlog.get_logger(__name__)

Unpublishable = Callable[[Sequence[tuple[UUID, str]]], None]
"""Called inside the settling transaction with (event id, reason) of each event that is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayPolicy:
    batch: int
    lease_seconds: float
    message_timeout_seconds: float
    max_attempts: int
    retry_base_seconds: float
    retry_max_seconds: float


@dataclass(frozen=True, slots=True)
class ClaimedEvent:
    """A leased row without its payload, of which only the size is known."""

    id: UUID
    aggregate_id: UUID | None
    topic: str
    message_key: bytes | None
    publication: int
    retry_count: int
    crashes: int  # before this claim
    payload_bytes: int

    def as_record(self, payload: bytes) -> OutgoingRecord:
        key = self.message_key
        if key is None and self.aggregate_id is not None:
            key = str(self.aggregate_id).encode()
        headers: list[tuple[str, str | bytes | None]] = []
        if self.publication > 1:
            headers.append((PUBLICATION_HEADER, str(self.publication).encode()))
        return OutgoingRecord(self.topic, key, payload, headers)


def slices(events: Sequence[ClaimedEvent], limit_bytes: int = SLICE_BYTES) -> Iterator[list[ClaimedEvent]]:
    """`events` in their order, in groups whose payloads are at most `limit_bytes` together (one may be above it alone)."""
    group: list[ClaimedEvent] = []
    size = 0
    for event in events:
        if group and size + event.payload_bytes > limit_bytes:
            yield group
            group, size = [], 0
        group.append(event)
        size += event.payload_bytes
    if group:
        yield group


class OutboxRelay:
    """Publishes what is due in `outbox_events`. `give_up` ends a publish that waits for its broker, so that a stop is prompt."""

    FIELDS = ("id", "aggregate_id", "topic", "message_key", "publication", "retry_count", "crashes", Length("payload"))

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
        self._half_open_batch = 1

    def run_once(self) -> int:
        """Publishes one batch and returns how many events it claimed; 0 where none is due or the broker is away (then it claims none).

        After an outage the first batch is one event, since a broker that answers probes may refuse records all the same; then two, four
        and so on, since it may be one partition that is away, and its oldest event must not stop the others.
        """
        if not self._broker_is_there():
            return 0
        self._producer.connect()
        token = new_lease_token()
        lease_ends_at = time.monotonic() + self._policy.lease_seconds
        claimed = self._without_suspects(token, self._claim(token))
        if not claimed:
            self._close_circuit()
            return 0
        healthy = [event for event in claimed if event.crashes < POISON_CRASHES]
        reports = self._publish(healthy, lease_ends_at)
        reach(CrashPoint.ACKNOWLEDGED)
        self._settle_surely(
            token, claimed, dict(zip((event.id for event in healthy), reports, strict=True)), lease_ends_at
        )
        self._judge_broker(healthy, reports)
        return len(claimed)

    def _claim(self, token: int) -> list[ClaimedEvent]:
        rows = claim_due(
            OutboxEvent,
            self.FIELDS,
            batch=self._policy.batch if self._breaker.is_closed else self._half_open_batch,
            lease_seconds=self._policy.lease_seconds,
            token=token,
            claims=F("claims") + 1,
        )
        return [ClaimedEvent(*row) for row in rows]

    def _without_suspects(self, token: int, claimed: list[ClaimedEvent]) -> list[ClaimedEvent]:
        """All that was claimed; or one row alone that may have ended its workers, and the others go back as they were.

        So a row that crashes its worker is found out by itself, and never takes its neighbours along.
        """
        suspect = next((event for event in claimed if event.crashes >= SUSPECT_CRASHES), None)
        if suspect is None or len(claimed) == 1:
            return claimed
        others = [event.id for event in claimed if event is not suspect]
        OutboxEvent.objects.held_by(token, others).unclaim()
        return [suspect]

    def _publish(self, events: Sequence[ClaimedEvent], lease_ends_at: float) -> list[Report]:
        """Slice by slice, so that memory does not depend on the size of events; what the lease leaves no time for is not begun."""
        reports: list[Report] = []
        for group in slices(events):
            if reports and time.monotonic() + self._policy.message_timeout_seconds >= lease_ends_at:
                break
            rows = OutboxEvent.objects.filter(pk__in=[event.id for event in group]).values_list("pk", "payload")
            payloads = {key: bytes(payload) for key, payload in rows}
            records = [event.as_record(payloads[event.id]) for event in group]
            reports += self._producer.publish(records, give_up=self._give_up)
        return reports + [UNANSWERED] * (len(events) - len(reports))

    def _settle_surely(
        self, token: int, claimed: Sequence[ClaimedEvent], reports: dict[UUID, Report], lease_ends_at: float
    ) -> None:
        """Settles, again and again while the database is away or busy and the lease lasts: what is published is not published again."""
        backoff = LoopBackoff(maximum_seconds=1.0)
        while True:
            try:
                self._settle(token, claimed, reports)
            except Exception as error:
                wait_seconds = backoff.next_wait_seconds()
                if not is_passing(error) or self._give_up() or time.monotonic() + wait_seconds >= lease_ends_at:
                    raise
                log.warning("the database is away or busy: settling is tried again", error=str(error))
                time.sleep(wait_seconds)
                fresh_connections()
            else:
                return

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
            reach(CrashPoint.OUTBOX_SETTLE_UNCOMMITTED)
        reach(CrashPoint.OUTBOX_SETTLE_COMMITTED)
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
        """Whether to claim. Where the circuit is open still, it is half open now: what is claimed next decides."""
        if self._breaker.is_closed:
            return True
        if not self._breaker.allow():
            return False
        reason = self._producer.probe(self._suspect_topics)
        if reason is None:
            return True
        self._breaker.failure(reason, hold_seconds=CONFIGURATION_HOLD_SECONDS if self._suspect_topics else None)
        return False

    def _judge_broker(self, events: Sequence[ClaimedEvent], reports: Sequence[Report]) -> None:
        if self._give_up():
            return  # what was purged says nothing about the broker
        for event, report in zip(events, reports, strict=True):
            if report.fault is Fault.CONFIGURATION:
                self._suspect_topics.add(event.topic)
                reason = f"{event.topic}: {report.reason}"
                self._breaker.failure(reason, hold_seconds=CONFIGURATION_HOLD_SECONDS)
                return
        unanswered = next((report for report in reports if report.fault is Fault.DEPENDENCY), None)
        if unanswered is not None:
            self._note_unanswered(took_some=any(report.fault is None for report in reports))
            self._breaker.failure(unanswered.reason)
            return
        self._close_circuit()

    def _note_unanswered(self, *, took_some: bool) -> None:
        if took_some:  # a part of the broker is away: the rest gets whole batches, after the shortest wait
            self._breaker.success()
            self._half_open_batch = self._policy.batch
        else:
            self._half_open_batch = 1 if self._breaker.is_closed else min(self._policy.batch, 2 * self._half_open_batch)

    def _close_circuit(self) -> None:
        self._suspect_topics.clear()
        self._breaker.success()
