"""Rows of the outbox, and a producer that answers as a test says."""

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from shared_events.contracts.events import EmailSent, new_id, now
from shared_events.contracts.topics import NOTIFICATION_STATUS
from shared_events.kafka.producer import ACKNOWLEDGED, Fault, OutgoingRecord, Report
from shared_events.outbox.models import OutboxEvent
from shared_events.outbox.relay import OutboxRelay, RelayPolicy
from shared_events.runtime.breaker import CircuitBreaker
from tests.shared_events.probes import Clock

AWAY = Report(Fault.DEPENDENCY, "timed out")
TOO_LARGE = Report(Fault.MESSAGE, "too large")
UNKNOWN_TOPIC = Report(Fault.CONFIGURATION, "unknown topic")

POLICY = RelayPolicy(
    batch=500,
    lease_seconds=60,
    message_timeout_seconds=30,
    max_attempts=10,
    retry_base_seconds=1,
    retry_max_seconds=300,
)


def sent_event(notification_id: UUID | None = None) -> EmailSent:
    return EmailSent(
        event_id=new_id(),
        notification_id=notification_id or new_id(),
        status_version=1,
        occurred_at=now(),
        producer="email-service",
        sent_at=now(),
    )


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def store(count: int = 1, *, topic: str = NOTIFICATION_STATUS, **fields: Any) -> list[UUID]:
    """Stores due events, the first one due first, and returns their ids."""
    rows = []
    for n in range(count):
        due_at = fields.get("due_at", ago(3600 - n))
        row = OutboxEvent.of(sent_event(), topic, due_at=due_at)
        for name, value in fields.items():
            setattr(row, name, value)
        rows.append(row)
    OutboxEvent.objects.bulk_create(rows)
    return [row.pk for row in rows]


def only() -> OutboxEvent:
    event: OutboxEvent = OutboxEvent.objects.get()
    return event


class ScriptedProducer:
    """Answers each record by `answer`, and probes by `problem`; keeps what it was asked."""

    def __init__(self, answer: Callable[[OutgoingRecord], Report] = lambda _record: ACKNOWLEDGED) -> None:
        self.answer = answer
        self.problem: str | None = None
        self.published: list[OutgoingRecord] = []
        self.probed: list[set[str]] = []

    def connect(self) -> None:
        """Nothing to make."""

    def publish(self, records: Sequence[OutgoingRecord], *, give_up: Callable[[], bool]) -> list[Report]:
        self.published += records
        return [self.answer(record) for record in records]

    def probe(self, topics: Collection[str] = ()) -> str | None:
        self.probed.append(set(topics))
        return self.problem


class Relaying:
    """A relay with its collaborators."""

    def __init__(self, producer: Any, *, clock: Clock | None = None, **policy: Any) -> None:
        self.producer = producer
        self.clock = clock or Clock()
        self.breaker = CircuitBreaker("kafka", clock=self.clock)
        self.given_up: list[tuple[UUID, str]] = []
        values = {name: getattr(POLICY, name) for name in POLICY.__slots__} | policy
        self.gives_up = False
        self.relay = OutboxRelay(
            producer,
            RelayPolicy(**values),
            unpublishable=self.given_up.extend,
            breaker=self.breaker,
            give_up=lambda: self.gives_up,
        )
