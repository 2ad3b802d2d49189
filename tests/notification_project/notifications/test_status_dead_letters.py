"""What cannot be merged becomes a dead letter of its class, in the transaction that merges the rest."""

import json
from typing import Any

import pytest
from django.db import OperationalError
from pytest_django import Settings

from notification_project.notifications import status
from notification_project.notifications.models import Notification
from shared_events.contracts.events import EmailSent, encode, new_id, now
from shared_events.contracts.topics import NOTIFICATION_DEAD_LETTERS
from shared_events.dead_letters.models import DeadLetter
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.factories import NotificationFactory, created_event, record

pytestmark = pytest.mark.django_db


def sent(notification_id: Any, version: int = 1) -> bytes:
    return encode(
        EmailSent(
            event_id=new_id(), notification_id=notification_id, occurred_at=now(), producer="email-service",
            status_version=version, sent_at=now(),
        )
    )  # fmt: skip


def changed(value: bytes, **fields: Any) -> bytes:
    return json.dumps({**json.loads(value), **fields}).encode()


def only_letter() -> Any:
    letter = DeadLetter.objects.get()
    event = OutboxEvent.objects.get(topic=NOTIFICATION_DEAD_LETTERS)
    assert event.status == "PENDING"
    assert json.loads(bytes(event.payload))["class"] == letter.letter_class
    return letter


@pytest.mark.fault(52)
def test_a_status_of_an_unknown_notification_is_an_orphan() -> None:
    unknown = new_id()
    value = sent(unknown)
    status.handle([record(value, offset=7, key=b"the key")])
    letter = only_letter()
    assert (letter.letter_class, letter.notification_id) == ("orphan_status", unknown)
    assert (letter.source_topic, letter.source_partition, letter.source_offset) == ("notification-status-topic", 0, 7)
    assert bytes(letter.original) == value
    assert bytes(letter.source_key) == b"the key"
    assert letter.replayed_at is None


UNREADABLE = {
    "null value": None, "empty": b"", "no json": b"\xff\xfe", "an array": b"[]", "no fields": b"{}", "nested": b"[" * 100_000,
}  # fmt: skip


@pytest.mark.fault(29)
@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_cannot_be_read_is_kept_whole_as_unreadable(value: bytes | None) -> None:
    status.handle([record(value)])
    letter = only_letter()
    assert (letter.letter_class, letter.notification_id) == ("unreadable", None)
    assert letter.original is None if value is None else bytes(letter.original) == value


@pytest.mark.parametrize(
    "fields", [{"status_version": "1"}, {"status_version": 1.5}, {"sent_at": "yesterday"}, {"sent_at": None}, {"attempts": {}},
               {"occurred_at": "2030-01-01T00:00:00"}, {"producer": 7}],
)  # fmt: skip
def test_a_field_of_a_wrong_type_is_unreadable_and_changes_nothing(fields: dict[str, Any]) -> None:
    row = NotificationFactory.create()
    status.handle([record(changed(sent(row.pk), **fields))])
    assert only_letter().letter_class == "unreadable"
    row.refresh_from_db()
    assert row.status == "PENDING"


@pytest.mark.fault(62)
@pytest.mark.parametrize(
    ("fields", "letter_class"),
    [
        ({"schema_version": 2}, "newer_schema"),
        ({"event_type": "EMAIL_BOUNCED"}, "unknown_type"),
        ({"event_type": "x" * 300}, "unknown_type"),
    ],
)
def test_what_is_newer_than_this_code_is_parked_by_its_class(fields: dict[str, Any], letter_class: str) -> None:
    row = NotificationFactory.create()
    status.handle([record(changed(sent(row.pk), **fields))])
    letter = only_letter()
    assert (letter.letter_class, letter.notification_id) == (letter_class, row.pk)


def test_a_request_event_on_the_status_topic_is_of_unknown_type() -> None:
    status.handle([record(encode(created_event(NotificationFactory.create())))])
    assert only_letter().letter_class == "unknown_type"


@pytest.mark.fault(62)
def test_an_unknown_field_is_no_fault() -> None:
    row = NotificationFactory.create()
    status.handle([record(changed(sent(row.pk), colour="blue"))])
    assert not DeadLetter.objects.exists()
    assert Notification.objects.get().status == "SENT"


@pytest.mark.fault(29)
def test_one_unreadable_record_stops_none_of_its_batch() -> None:
    rows = NotificationFactory.create_batch(3)
    values = [sent(rows[0].pk), b"{", sent(rows[1].pk), sent(new_id()), sent(rows[2].pk)]
    status.handle([record(value, offset=n) for n, value in enumerate(values)])
    assert Notification.objects.filter(status="SENT").count() == 3
    assert sorted(DeadLetter.objects.values_list("letter_class", flat=True)) == ["orphan_status", "unreadable"]


def test_the_same_record_makes_one_dead_letter_however_often_it_is_delivered() -> None:
    records = [record(b"{", offset=1), record(sent(new_id()), offset=2)]
    status.handle(records)
    status.handle(records)
    status.handle([*records, *records])
    assert DeadLetter.objects.count() == OutboxEvent.objects.filter(topic=NOTIFICATION_DEAD_LETTERS).count() == 2


def test_two_records_of_equal_value_at_other_offsets_are_two_dead_letters() -> None:
    status.handle([record(b"{", offset=1), record(b"{", offset=2)])
    assert DeadLetter.objects.count() == 2


@pytest.mark.fault(29)
def test_a_dead_letter_and_the_merge_are_one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    row = NotificationFactory.create()

    def away(*_: Any, **__: Any) -> None:
        raise OperationalError(2006, "gone away")

    monkeypatch.setattr(OutboxEvent.objects, "bulk_create", away)
    with pytest.raises(OperationalError):
        status.handle([record(sent(row.pk)), record(b"{", offset=1)])
    row.refresh_from_db()
    assert row.status == "PENDING"
    assert not DeadLetter.objects.exists()


def test_dead_letters_go_to_this_services_own_topic(settings: Settings) -> None:
    status.handle([record(b"{", key=b"its key")])
    event: Any = OutboxEvent.objects.get()
    assert event.topic == settings.DEAD_LETTER_TOPIC == "notification-dlq-topic"
    assert bytes(event.message_key) == b"its key"
    assert event.due_at is not None
