"""A mail in a worker's hands, and what is written of its outcome."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from shared_events.contracts.events import Attempt, EmailNotificationCreated, Failure, encode, now

from .message import Mail
from .models import SentEmail
from .outcomes import Outcome

ATTEMPTS_KEPT = 20


@dataclass(slots=True, kw_only=True)
class Delivery:
    """A leased row of `sent_emails`. Its counters are those of the row: only the lease's holder changes them."""

    id: UUID
    event_id: UUID
    created_at: datetime
    send_after: datetime | None
    message_id: str
    dated_at: datetime
    sender: str
    recipient: str
    subject: str
    message: str
    html: str | None
    reply_to: str | None
    send_before: datetime | None
    on_uncertain: str
    status_version: int
    retry_count: int
    generation: int
    possible_duplicates: int
    attempts: list[Attempt]
    crashes: int
    found_marked: bool
    leased_until: float  # of the monotonic clock
    gate: threading.Lock = field(default_factory=threading.Lock)
    in_data: bool = False  # set under `gate`, right before DATA
    withdrawn: bool = False  # set under `gate`: DATA must not begin any more

    @classmethod
    def of_row(cls, row: Sequence[Any], *, leased_until: float) -> "Delivery":
        """From a tuple of SentEmail.CLAIM_FIELDS."""
        values = dict(zip(SentEmail.CLAIM_FIELDS, row, strict=True))
        values["attempts"] = msgspec.convert(values["attempts"], list[Attempt])
        values["found_marked"] = values.pop("data_started_at") is not None
        return cls(**values, leased_until=leased_until)

    @classmethod
    def of_mail(cls, mail: SentEmail, *, leased_until: float = 0.0) -> "Delivery":
        """From a whole row, in whose insert or UPDATE the mark is this owner's."""
        values = {name: getattr(mail, name) for name in SentEmail.CLAIM_FIELDS} | {"data_started_at": None}
        return cls.of_row([values[name] for name in SentEmail.CLAIM_FIELDS], leased_until=leased_until)

    def take_over(self, claimed: "Delivery") -> None:
        """Goes on under a later claim of the same row: its lease and its counters, of which another worker may have changed some."""
        self.leased_until = claimed.leased_until
        self.status_version = claimed.status_version
        self.retry_count = claimed.retry_count
        self.generation = claimed.generation
        self.possible_duplicates = claimed.possible_duplicates
        self.attempts = claimed.attempts

    def withdraw(self) -> bool:
        """Keeps DATA from beginning from now on; False where it has begun."""
        with self.gate:
            self.withdrawn = True
            return not self.in_data

    @property
    def next_attempt(self) -> int:
        return self.attempts[-1].n + 1 if self.attempts else 1

    def as_mail(self) -> Mail:
        return Mail(
            id=self.id,
            message_id=self.message_id,
            dated_at=self.dated_at,
            sender=self.sender,
            recipient=self.recipient,
            subject=self.subject,
            message=self.message,
            html=self.html,
            reply_to=self.reply_to,
            copy=self.possible_duplicates,
        )

    def original(self) -> bytes:
        """The event as it was taken in, for a dead letter."""
        return encode(
            EmailNotificationCreated(
                event_id=self.event_id,
                notification_id=self.id,
                occurred_at=self.created_at,
                producer="notification-service",
                recipient=self.recipient,
                subject=self.subject,
                message=self.message,
                html=self.html,
                reply_to=self.reply_to,
                created_at=self.created_at,
                send_after=self.send_after,
                send_before=self.send_before,
                on_uncertain=self.on_uncertain,  # type: ignore[arg-type]
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one attempt. `outcome` None: nothing of it has left, and it goes back as it was."""

    delivery: Delivery
    outcome: Outcome | None
    host: str
    at: datetime = field(default_factory=now)

    def attempt(self) -> Attempt:
        assert self.outcome is not None  # noqa: S101 (callers have sorted those out)
        return Attempt(
            n=self.delivery.next_attempt,
            at=self.at,
            phase=self.outcome.phase,
            outcome=self.outcome.kind,
            code=self.outcome.basic_code,
            enhanced_code=self.outcome.enhanced_code,
            reply=self.outcome.reply,
            host=self.host,
        )

    def attempts(self) -> list[Attempt]:
        return [*self.delivery.attempts, self.attempt()][-ATTEMPTS_KEPT:]

    def failure(self) -> Failure:
        assert self.outcome is not None  # noqa: S101
        return Failure(
            failure_class=self.outcome.failure_class or "policy", code=self.outcome.code, detail=self.outcome.reply
        )


class DeliveryDefectError(Exception):
    """Something that is no fault of a server: a defect of ours, met with this mail."""

    def __init__(self, delivery: Delivery) -> None:
        super().__init__(str(delivery.id))
        self.delivery = delivery


class NotBegunError(Exception):
    """DATA must not begin. `outcome` None: the mail goes back as it was."""

    def __init__(self, outcome: Outcome | None) -> None:
        super().__init__()
        self.outcome = outcome
