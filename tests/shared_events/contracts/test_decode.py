"""Decoding is strict in types, tolerant in fields, and says how what it refuses is to be filed."""

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_events.contracts.events import (
    EmailNotificationCreated,
    EmailSent,
    Event,
    StatusEvent,
    UnreadableEventError,
    decode,
)

ID = "0198a7c0-0000-7000-8000-000000000001"


def fields(**changes: Any) -> dict[str, Any]:
    return {
        "event_type": "EMAIL_NOTIFICATION_CREATED",
        "event_id": "0198a7c0-0000-7000-8000-000000000002",
        "schema_version": 1,
        "notification_id": ID,
        "status_version": 0,
        "occurred_at": "2026-01-02T03:04:05.000006Z",
        "producer": "notification-service",
        "recipient": "ada@example.com",
        "subject": "Hi",
        "message": "Hello",
        "created_at": "2026-01-02T03:04:05Z",
        **changes,
    }


def value_of(**changes: Any) -> bytes:
    return json.dumps(fields(**changes)).encode()


def refused(value: bytes | None, **options: Any) -> UnreadableEventError:
    with pytest.raises(UnreadableEventError) as caught:
        decode(value, **options)
    return caught.value


@pytest.mark.fault(62)
def test_unknown_fields_are_ignored() -> None:
    event = decode(value_of(later="field", nested={"a": [1, {"b": None}]}))
    assert isinstance(event, EmailNotificationCreated)
    assert event.recipient == "ada@example.com"


def test_optional_fields_may_be_missing() -> None:
    event = decode(value_of())
    assert (event.html, event.reply_to, event.send_after, event.send_before, event.on_uncertain) == (
        None,
        None,
        None,
        None,
        "resend",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": "1"},
        {"schema_version": True},
        {"schema_version": None},
        {"status_version": "0"},
        {"status_version": 0.5},
        {"notification_id": 7},
        {"notification_id": "no uuid"},
        {"notification_id": None},
        {"recipient": 5},
        {"recipient": None},
        {"message": ["Hello"]},
        {"created_at": 1767323045},
        {"created_at": "2026-01-02T03:04:05"},
        {"created_at": "yesterday"},
        {"on_uncertain": "guess"},
        {"event_type": 5},
    ],
    ids=str,
)
def test_a_wrong_type_is_unreadable(changes: dict[str, Any]) -> None:
    assert refused(value_of(**changes)).letter_class == "unreadable"


@pytest.mark.parametrize("name", ["event_id", "event_type", "schema_version", "notification_id", "producer", "message"])
def test_a_missing_field_is_unreadable(name: str) -> None:
    left = fields()
    del left[name]
    assert refused(json.dumps(left).encode()).letter_class == "unreadable"


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"null",
        b"[]",
        b"7",
        b'"EMAIL_SENT"',
        b"{",
        b"\xff\xfe",
        b"\x00",
        value_of()[:-1],
        value_of() + b"x",
        value_of(message="x").replace(b'"x"', b'"\xff"'),
        value_of(message="x").replace(b'"x"', b'"\\ud800"'),
        b'{"a":' * 100_000,
        value_of(later="deep").replace(b'"deep"', b"[" * 100_000 + b"]" * 100_000),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_malformed_value_is_unreadable(value: bytes | None) -> None:
    error = refused(value)
    assert (error.letter_class, error.notification_id) == ("unreadable", None)
    assert 0 < len(error.cause) <= 500


@pytest.mark.fault(62)
def test_an_unknown_type_is_filed_as_such_with_its_notification() -> None:
    error = refused(value_of(event_type="EMAIL_TELEPORTED"))
    assert (error.letter_class, error.notification_id) == ("unknown_type", UUID(ID))
    assert "EMAIL_TELEPORTED" in error.cause


def test_an_unknown_types_cause_stays_short() -> None:
    assert len(refused(value_of(event_type="X" * 100_000)).cause) < 200


def test_a_type_that_is_not_expected_here_is_unknown_here() -> None:
    assert isinstance(decode(value_of(), expected=(EmailNotificationCreated,)), EmailNotificationCreated)
    assert refused(value_of(), expected=(StatusEvent,)).letter_class == "unknown_type"


def test_an_expected_base_takes_all_its_types() -> None:
    value = value_of(event_type="EMAIL_SENT", sent_at="2026-01-02T03:04:05Z")
    assert isinstance(decode(value, expected=(StatusEvent,)), EmailSent)


@pytest.mark.fault(62)
@pytest.mark.parametrize("event_type", ["EMAIL_NOTIFICATION_CREATED", "EMAIL_TELEPORTED"])
def test_a_newer_schema_is_filed_as_such_whatever_else_it_holds(event_type: str) -> None:
    error = refused(value_of(event_type=event_type, schema_version=2, recipient={"mailbox": 1}))
    assert (error.letter_class, error.notification_id) == ("newer_schema", UUID(ID))


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(value: bytes) -> None:
    assert refused(value).letter_class == "unreadable"


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_json_raises_anything_else(document: Any) -> None:
    assert refused(json.dumps(document).encode()).letter_class == "unreadable"


@given(
    name=st.sampled_from(sorted(fields())),
    replacement=st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers()),
)
def test_a_damaged_field_is_read_or_refused_and_nothing_else(name: str, replacement: Any) -> None:
    found: object
    try:
        found = decode(value_of(**{name: replacement}))
    except UnreadableEventError as error:
        found = error.letter_class
    assert isinstance(found, Event) or found in {"unreadable", "unknown_type", "newer_schema"}
