"""The events on the topics: frozen types in one flat envelope, and the only way to read and write them.

Encoding is UTF-8 JSON. Decoding is strict in types ("1" is no integer) and tolerant in fields (an unknown one is ignored), so that a
producer may add fields before its consumers know them.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

Instant = Annotated[datetime, msgspec.Meta(tz=True)]

SCHEMA_VERSION: Final = 1
"""The highest version that this code reads, and the one it writes."""


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event_type", omit_defaults=False):
    """The envelope. `status_version` orders the outcomes of one notification; requests carry 0."""

    event_id: UUID
    schema_version: int = SCHEMA_VERSION
    notification_id: UUID
    status_version: int = 0
    occurred_at: Instant
    producer: str


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try to hand a mail over: how far it came (`phase`), how it ended (`outcome`) and what the server said, if it did."""

    n: int
    at: Instant
    phase: str
    outcome: str
    code: int | None = None
    enhanced_code: str | None = None
    reply: str = ""
    host: str = ""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a notification failed: its class, the enhanced code (else the basic code, else our word), and the words of the server."""

    failure_class: str = msgspec.field(name="class")
    code: str
    detail: str


class Uncertain(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a mail that may have arrived: the phase it reached, since when, at which host, and what happens next."""

    phase: str
    since: Instant
    host: str
    message_id: str
    next: str


class EmailNotificationCreated(Event, frozen=True, kw_only=True, tag="EMAIL_NOTIFICATION_CREATED"):
    recipient: str
    subject: str
    message: str
    html: str | None = None
    reply_to: str | None = None
    created_at: Instant
    send_after: Instant | None = None
    send_before: Instant | None = None
    on_uncertain: Literal["resend", "hold"] = "resend"


class EmailResolutionRequested(Event, frozen=True, kw_only=True, tag="EMAIL_RESOLUTION_REQUESTED"):
    """An operator's word on an uncertain mail; it holds for that `generation` of it and no other."""

    resolution: Literal["delivered", "not_delivered", "resend"]
    reason: str
    operator: str
    generation: int


class EmailStatusKnown(Event, frozen=True, kw_only=True, tag="EMAIL_STATUS_KNOWN"):
    """What the notification service knows of a mail, for an e-mail service that has forgotten some of it: its database was restored."""

    status: Literal["PENDING", "SENT", "FAILED", "UNCERTAIN"]
    sent_at: Instant | None = None
    attempts: list[Attempt] = []
    possible_duplicates: int = 0
    generation: int = 0


class StatusEvent(Event, frozen=True, kw_only=True):
    """What every report on a mail carries: the attempts so far, how many copies beyond one the recipient may have, and the generation.

    `generation` counts replays and resolutions of the mail.
    """

    attempts: list[Attempt] = []
    possible_duplicates: int = 0
    generation: int = 0


class EmailSent(StatusEvent, frozen=True, kw_only=True, tag="EMAIL_SENT"):
    sent_at: Instant


class EmailFailed(StatusEvent, frozen=True, kw_only=True, tag="EMAIL_FAILED"):
    failure: Failure


class EmailDeferred(StatusEvent, frozen=True, kw_only=True, tag="EMAIL_DEFERRED"):
    next_attempt_at: Instant | None = None


class EmailUncertain(StatusEvent, frozen=True, kw_only=True, tag="EMAIL_UNCERTAIN"):
    uncertain: Uncertain


class EmailReplayed(StatusEvent, frozen=True, kw_only=True, tag="EMAIL_REPLAYED"):
    """A failed or uncertain mail is due again."""


class DeadLetterRecorded(msgspec.Struct, frozen=True, kw_only=True, tag_field="event_type", tag="DEAD_LETTER_RECORDED"):
    """A dead letter for its topic. `notification_id` is None where the original could not be read.

    `original` is the whole source record up to 500,000 bytes, else its first 64 KiB with `truncated`.
    """

    event_id: UUID
    schema_version: int = SCHEMA_VERSION
    notification_id: UUID | None
    status_version: int = 0
    occurred_at: Instant
    producer: str
    identity: str
    letter_class: str = msgspec.field(name="class")
    cause: str
    source_topic: str | None = None
    source_partition: int | None = None
    source_offset: int | None = None
    original: bytes
    original_size: int
    original_sha256: str
    truncated: bool = False


AnyEvent = (
    EmailNotificationCreated
    | EmailResolutionRequested
    | EmailStatusKnown
    | EmailSent
    | EmailFailed
    | EmailDeferred
    | EmailUncertain
    | EmailReplayed
)
AnyStatus = EmailSent | EmailFailed | EmailDeferred | EmailUncertain | EmailReplayed

TYPES: Final[dict[str, type[AnyEvent]]] = {
    "EMAIL_NOTIFICATION_CREATED": EmailNotificationCreated,
    "EMAIL_RESOLUTION_REQUESTED": EmailResolutionRequested,
    "EMAIL_STATUS_KNOWN": EmailStatusKnown,
    "EMAIL_SENT": EmailSent,
    "EMAIL_FAILED": EmailFailed,
    "EMAIL_DEFERRED": EmailDeferred,
    "EMAIL_UNCERTAIN": EmailUncertain,
    "EMAIL_REPLAYED": EmailReplayed,
}


class UnreadableEventError(ValueError):
    """A record that cannot be used. `letter_class` says how its dead letter is filed: `unreadable`, `unknown_type`, `newer_schema`."""

    def __init__(self, letter_class: str, cause: str, notification_id: UUID | None = None) -> None:
        super().__init__(cause)
        self.letter_class = letter_class
        self.cause = cause
        self.notification_id = notification_id


class _Head(msgspec.Struct, frozen=True):
    event_type: str
    schema_version: int
    notification_id: UUID | None = None


_encoder = msgspec.json.Encoder()
_head_decoder = msgspec.json.Decoder(_Head)
_decoders: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    name: msgspec.json.Decoder(type_) for name, type_ in TYPES.items()
}


def encode(event: AnyEvent | DeadLetterRecorded) -> bytes:
    """One flat JSON object, UTF-8."""
    return _encoder.encode(event)


def decode(value: bytes | None, *, expected: tuple[type[Event], ...] = ()) -> Any:
    """The event in a record's value, one of `expected` where given.

    Raises UnreadableEventError for a null value, malformed JSON, a wrong type of a field, an event type
    that is unknown or not expected here,
    and a schema version above SCHEMA_VERSION.
    """
    if value is None:
        raise UnreadableEventError("unreadable", "the record has no value")
    try:
        head = _head_decoder.decode(value)
        if head.schema_version > SCHEMA_VERSION:
            raise UnreadableEventError(
                "newer_schema", f"schema version {head.schema_version} is above {SCHEMA_VERSION}", head.notification_id
            )
        type_ = TYPES.get(head.event_type)
        if type_ is None or (expected and not issubclass(type_, expected)):
            raise UnreadableEventError(
                "unknown_type", f"event type {head.event_type[:64]!r} is not known here", head.notification_id
            )
        return _decoders[head.event_type].decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableEventError("unreadable", str(error)[:500]) from error


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562 5.7): ids made one after the other sort in that order within a process."""
    return uuid7()


def id_at(instant: datetime, slack: timedelta = timedelta()) -> UUID:
    """The lowest UUIDv7 of a time, `slack` off: it separates ids by their age."""
    milliseconds = max(0, int((instant - datetime(1970, 1, 1, tzinfo=UTC) + slack) / timedelta(milliseconds=1)))
    return UUID(int=milliseconds << 80)


def now() -> datetime:
    return datetime.now(UTC)
