"""The events: round trips, and the envelope as it stands on the topics."""

import json
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_events.contracts import topics
from shared_events.contracts.events import (
    TYPES,
    AnyEvent,
    DeadLetterRecorded,
    decode,
    encode,
    new_id,
)

from .strategies import DEAD_LETTERS, EVENTS

ENVELOPE = [
    "event_type",
    "event_id",
    "schema_version",
    "notification_id",
    "status_version",
    "occurred_at",
    "producer",
]


@pytest.mark.parametrize("type_", EVENTS, ids=lambda type_: type_.__name__)
@given(data=st.data())
def test_each_event_comes_back_as_it_was(type_: type[AnyEvent], data: st.DataObject) -> None:
    event = data.draw(EVENTS[type_])
    read = decode(encode(event))
    assert type(read) is type_
    assert read == event


@pytest.mark.parametrize("type_", EVENTS, ids=lambda type_: type_.__name__)
@given(data=st.data())
def test_the_envelope_is_flat_and_whole(type_: type[AnyEvent], data: st.DataObject) -> None:
    value = encode(data.draw(EVENTS[type_]))
    fields = json.loads(value.decode("utf-8"))
    assert list(fields)[: len(ENVELOPE)] == ENVELOPE
    assert isinstance(fields["schema_version"], int)
    assert fields["notification_id"] == str(UUID(fields["notification_id"]))
    assert fields["occurred_at"].endswith("Z")


@given(event=DEAD_LETTERS)
def test_a_dead_letters_event_has_the_same_envelope_and_its_original_in_base64(event: DeadLetterRecorded) -> None:
    value = encode(event)
    assert list(json.loads(value))[: len(ENVELOPE)] == ENVELOPE
    assert msgspec.json.decode(value, type=DeadLetterRecorded) == event


def test_the_types_have_the_names_that_they_are_known_by() -> None:
    names = {name: type_.__struct_config__.tag for name, type_ in TYPES.items()}
    assert all(name == tag for name, tag in names.items())
    assert {"EMAIL_NOTIFICATION_CREATED", "EMAIL_SENT", "EMAIL_FAILED"} <= set(names)
    assert set(TYPES.values()) == set(EVENTS)


def test_the_topics_have_the_names_that_they_are_known_by() -> None:
    assert topics.ALL == (
        "notification-events-topic",
        "notification-status-topic",
        "email-dlq-topic",
        "notification-dlq-topic",
    )


def test_an_event_cannot_be_changed() -> None:
    event: Any = _sent()
    with pytest.raises(AttributeError):
        event.status_version = 9


def _sent() -> AnyEvent:
    fields = {
        "event_type": "EMAIL_SENT",
        "event_id": str(new_id()),
        "schema_version": 1,
        "notification_id": str(new_id()),
        "occurred_at": "2026-01-02T03:04:05Z",
        "producer": "email-service",
        "sent_at": "2026-01-02T03:04:05Z",
    }
    event: AnyEvent = decode(json.dumps(fields).encode())
    return event


def test_ids_made_one_after_the_other_sort_in_that_order() -> None:
    ids = [new_id() for _ in range(2000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert {made.version for made in ids} == {7}
