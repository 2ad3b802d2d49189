"""Dead letters: one for each failure, the original whole, and never one of a dead letter."""

import base64
import hashlib
from collections.abc import Sequence
from uuid import UUID

import msgspec
import pytest
from django.db import IntegrityError, transaction
from django.db.models import F

from shared_events.contracts.events import DeadLetterRecorded, encode, new_id
from shared_events.dead_letters.models import (
    TOPIC_LIMIT_BYTES,
    TRUNCATED_BYTES,
    DeadLetter,
    record_dead_letters,
)
from shared_events.dead_letters.unpublishable import record_unpublishable
from shared_events.dead_letters.writer import write_dead_letter
from shared_events.kafka.consumer import Record
from shared_events.outbox.models import OutboxEvent
from tests.shared_events.outbox.factories import Relaying, ScriptedProducer, sent_event, store
from tests.shared_events.probes import counted_sql

pytestmark = pytest.mark.django_db
ID = UUID("0198a7c0-0000-7000-8000-000000000001")
PLACE = Record(
    "some-topic", 3, 41, 1_700_000_000_000, b"the key", b"\xff\x00 no text", (("trace", b"\x01"), ("none", None))
)


def place(**changes: object) -> Record:
    values = {name: getattr(PLACE, name) for name in PLACE.__slots__} | changes
    return Record(**values)


def of_record(record: Record = PLACE, notification_id: UUID | None = None) -> DeadLetter:
    return DeadLetter.of_record(record, letter_class="unreadable", cause="malformed", notification_id=notification_id)


def of_notification(generation: int = 0, original: bytes = b"{}") -> DeadLetter:
    return DeadLetter.of_notification(ID, generation, letter_class="recipient", cause="5.1.1", original=original)


def record(*letters: DeadLetter) -> int:
    return record_dead_letters(letters, topic="some-dlq", producer="email-service")


def events() -> list[DeadLetterRecorded]:
    return [msgspec.json.decode(bytes(row.payload), type=DeadLetterRecorded) for row in OutboxEvent.objects.all()]


def test_a_record_is_kept_with_its_place_byte_for_byte() -> None:
    record(of_record())
    letter = DeadLetter.objects.get()
    assert (bytes(letter.original or b""), bytes(letter.source_key or b"")) == (PLACE.value, PLACE.key)
    assert (letter.source_topic, letter.source_partition, letter.source_offset) == ("some-topic", 3, 41)
    assert letter.source_timestamp_ms == PLACE.timestamp_ms
    assert letter.source_headers == [["trace", base64.b64encode(b"\x01").decode()], ["none", None]]
    assert (letter.letter_class, letter.cause, letter.replayed_at) == ("unreadable", "malformed", None)


def test_a_record_without_value_and_key_can_be_kept() -> None:
    record(of_record(place(key=None, value=None)))
    letter = DeadLetter.objects.get()
    assert (letter.original, letter.source_key) == (None, None)
    assert events()[0].original == b""


def test_the_same_failure_makes_one_dead_letter() -> None:
    assert [record(of_record()), record(of_record())] == [1, 0]
    assert record(of_record(), of_record(place(offset=42))) == 1
    assert record(of_record(place(offset=43)), of_record(place(offset=43))) == 1
    assert (DeadLetter.objects.count(), OutboxEvent.objects.count()) == (3, 3)


@pytest.mark.parametrize(
    "change", [{"topic": "other"}, {"partition": 4}, {"offset": 42}, {"timestamp_ms": 1}, {"value": b"{}"}], ids=str
)
def test_a_failure_elsewhere_is_another(change: dict[str, object]) -> None:
    assert record(of_record(), of_record(place(**change))) == 2


def test_a_notification_has_one_for_each_generation() -> None:
    assert [record(of_notification(generation)) for generation in (0, 0, 1, 1, 2)] == [1, 0, 1, 0, 1]
    assert bytes(of_notification(3).identity) == hashlib.sha256(f"{ID}\x003".encode()).digest()


def test_two_workers_cannot_store_the_same_one() -> None:
    record(of_notification())
    with pytest.raises(IntegrityError), transaction.atomic():
        of_notification().save(force_insert=True)


def test_its_event_holds_the_whole_original_and_says_where_it_was() -> None:
    record(of_record())
    event = events()[0]
    assert (event.original, event.truncated, event.original_size) == (PLACE.value, False, len(PLACE.value or b""))
    assert event.original_sha256 == hashlib.sha256(PLACE.value or b"").hexdigest()
    assert (event.source_topic, event.source_partition, event.source_offset) == ("some-topic", 3, 41)
    letter = DeadLetter.objects.get()
    assert (event.identity, event.occurred_at) == (bytes(letter.identity).hex(), letter.created_at)
    assert (event.letter_class, event.cause, event.producer) == ("unreadable", "malformed", "email-service")


@pytest.mark.parametrize(
    ("size", "sent", "truncated"),
    [(TOPIC_LIMIT_BYTES, TOPIC_LIMIT_BYTES, False), (TOPIC_LIMIT_BYTES + 1, TRUNCATED_BYTES, True)],
)
def test_beyond_500000_bytes_the_topic_gets_the_beginning_and_the_table_all(
    size: int, sent: int, *, truncated: bool
) -> None:
    original = bytes(n % 251 for n in range(size))
    record(of_notification(original=original))
    event = events()[0]
    assert (event.original, event.truncated) == (original[:sent], truncated)
    assert (event.original_size, event.original_sha256) == (size, hashlib.sha256(original).hexdigest())
    assert bytes(DeadLetter.objects.get().original or b"") == original
    assert len(OutboxEvent.objects.get().payload) < 1_000_000  # what a broker takes


@pytest.mark.parametrize(
    ("letter", "key"),
    [
        (of_notification(), str(ID).encode()),
        (of_record(notification_id=ID), str(ID).encode()),
        (of_record(), b"the key"),
        (of_record(place(key=None)), None),
    ],
)
def test_its_key_is_the_notifications_id_else_the_source_records_key(letter: DeadLetter, key: bytes | None) -> None:
    letter.id = new_id()
    record(letter)
    producer = ScriptedProducer()
    Relaying(producer).relay.run_once()
    assert [(sent.topic, sent.key) for sent in producer.published] == [("some-dlq", key)]


def test_a_cause_is_cut_to_its_column() -> None:
    letter = DeadLetter.of_record(PLACE, letter_class="unreadable", cause="x" * 900)
    record(letter)
    assert len(DeadLetter.objects.get().cause) == 500


def test_any_number_of_them_costs_three_statements() -> None:
    letters = [of_record(place(offset=offset)) for offset in range(20)]
    with counted_sql() as sql:
        record(*letters)
    assert len(sql.statements) == 3
    with counted_sql() as sql:
        assert record() == 0
    assert not sql.statements


def test_the_loops_writer_stores_it_with_its_event_for_this_services_topic() -> None:
    write_dead_letter(PLACE, letter_class="handler_error", cause="ZeroDivisionError")
    write_dead_letter(PLACE, letter_class="handler_error", cause="ZeroDivisionError")
    assert DeadLetter.objects.get().letter_class == "handler_error"
    assert OutboxEvent.objects.get().topic == "notification-dlq-topic"


# ---- events that can never be published


def give_up(ids: Sequence[UUID], topic: str = "notification-status-topic") -> dict[UUID, str]:
    return record_unpublishable([(event_id, "too large") for event_id in ids], topic=topic)


def test_an_event_that_was_given_up_makes_a_dead_letter_with_its_payload() -> None:
    event = sent_event(ID)
    OutboxEvent.objects.bulk_create([OutboxEvent.of(event, "notification-status-topic")])
    assert give_up([event.event_id]) == {ID: "too large"}
    letter = DeadLetter.objects.get()
    assert (letter.notification_id, letter.letter_class, letter.cause) == (ID, "unpublishable", "too large")
    assert bytes(letter.original or b"") == encode(event)
    assert OutboxEvent.objects.filter(event_type="DEAD_LETTER_RECORDED").count() == 1


@pytest.mark.fault(56)
def test_the_event_of_a_dead_letter_never_makes_one() -> None:
    record(of_notification())
    assert give_up([OutboxEvent.objects.get().pk]) == {}
    assert (DeadLetter.objects.count(), OutboxEvent.objects.count()) == (1, 1)


def test_events_of_other_topics_are_left() -> None:
    ids = store(2, topic="some-other-topic")
    assert give_up(ids) == {}
    assert not DeadLetter.objects.exists()


def test_an_event_given_up_again_after_its_replay_is_another_dead_letter() -> None:
    ids = store()
    give_up(ids)
    give_up(ids)
    OutboxEvent.objects.filter(pk__in=ids).update(claims=F("claims") + 1)  # the relay took it again
    give_up(ids)
    assert DeadLetter.objects.count() == 2
