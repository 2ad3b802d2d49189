"""POST /notifications: accepted means committed."""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from notification_project.notifications.models import IdempotencyKey, Notification
from shared_events.contracts.events import EmailNotificationCreated, decode
from shared_events.contracts.topics import NOTIFICATION_EVENTS
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.conftest import URL, Api
from tests.notification_project.factories import BodyFactory, ago, ahead

WHOLE_BODY = {
    "recipient": "ada@example.com",
    "subject": "Willkommen, Ädä – 你好 🎉",
    "message": "Line one\r\nline two\t…",
    "html": "<p>Hello</p>",
    "reply_to": "support@example.com",
    "client_reference": "order 4711",
    "metadata": {"tenant": "blue"},
    "on_uncertain": "hold",
}


def test_202_is_answered_with_the_location_and_the_body_that_get_shows(api: Api) -> None:
    accepted = api.post(BodyFactory.build(client_reference="order-1", metadata={"tenant": "blue"}))
    assert accepted.status_code == 202
    assert accepted["Content-Type"] == "application/json"
    assert accepted["Location"] == f"{URL}/{accepted.json()['id']}"
    shown = api.get(accepted["Location"])
    assert shown.status_code == 200
    assert shown.content == accepted.content


def test_a_notification_is_shown_with_exactly_the_fields_of_the_contract(api: Api) -> None:
    shown = api.post(BodyFactory.build(recipient="ada@example.com")).json()
    identifier, created_at = shown.pop("id"), shown.pop("created_at")
    assert UUID(identifier).version == 7
    assert created_at.endswith("Z")
    assert datetime.fromisoformat(created_at) > ago(seconds=30)
    assert shown == {
        "status": "PENDING", "final": False, "recipient": "ada@example.com", "subject": "Welcome",
        "client_reference": None, "metadata": {}, "send_after": None, "send_before": None, "sent_at": None,
        "failure": None, "uncertain": None, "attempts": 0, "next_attempt_at": None, "possible_duplicates": 0,
        "links": {
            "self": f"{URL}/{identifier}", "events": f"{URL}/{identifier}/events", "cancel": f"{URL}/{identifier}/cancel",
            "resolve": f"{URL}/{identifier}/resolve",
        },
    }  # fmt: skip


def test_notification_and_event_are_stored_whole(api: Api) -> None:
    accepted = api.post(WHOLE_BODY)
    assert accepted.status_code == 202, accepted.content
    notification = Notification.objects.get()
    event = OutboxEvent.objects.get()
    assert (event.aggregate_id, event.topic, event.status) == (notification.pk, NOTIFICATION_EVENTS, "PENDING")
    assert (event.claims, event.publication, event.retry_count, event.lease_token) == (0, 1, 0, 0)
    decoded: EmailNotificationCreated = decode(bytes(event.payload), expected=(EmailNotificationCreated,))
    assert decoded.event_id == event.pk
    assert decoded.notification_id == notification.pk
    for name in ("recipient", "subject", "message", "html", "reply_to", "on_uncertain"):
        assert getattr(decoded, name) == WHOLE_BODY[name], name
    assert notification.metadata == {"tenant": "blue"}
    assert notification.client == api.client
    assert notification.reconcile_at == notification.created_at


def test_each_post_without_a_key_is_a_new_notification_and_writes_no_idempotency_row(api: Api) -> None:
    body = BodyFactory.build()
    first, second = api.post(body), api.post(body)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] != second.json()["id"]
    assert Notification.objects.count() == OutboxEvent.objects.count() == 2
    assert not IdempotencyKey.objects.exists()
    assert "Idempotency-Expires" not in first.headers


def test_send_after_keeps_the_event_due_later_and_word_of_it_too(api: Api) -> None:
    send_after = ahead(days=200).replace(microsecond=0)
    shown = api.post(BodyFactory.build(send_after=send_after.isoformat())).json()
    event, notification = OutboxEvent.objects.get(), Notification.objects.get()
    assert event.due_at == event.available_at == send_after
    assert notification.reconcile_at == send_after
    assert datetime.fromisoformat(shown["send_after"]) == send_after
    assert not OutboxEvent.objects.overdue(0).exists()


def test_send_after_that_has_passed_is_due_now_and_does_not_make_the_outbox_old(api: Api) -> None:
    assert api.post(BodyFactory.build(send_after=ago(days=30).isoformat())).status_code == 202
    event: Any = OutboxEvent.objects.get()
    notification = Notification.objects.get()
    assert abs(event.due_at - notification.created_at) < timedelta(seconds=30)
    assert event.available_at == event.due_at
    assert not OutboxEvent.objects.overdue(3600).exists()


@pytest.mark.parametrize(
    ("given", "stored"),
    [("2099-01-31T12:00:00+02:00", "2099-01-31T10:00:00Z"), ("2099-01-31T12:00:00.25Z", "2099-01-31T12:00:00.250000Z")],
)
def test_times_are_shown_in_utc(api: Api, given: str, stored: str) -> None:
    assert api.post(BodyFactory.build(send_before=given)).json()["send_before"] == stored


def test_domains_are_lowered_and_local_parts_are_kept(api: Api) -> None:
    assert (
        api.post(BodyFactory.build(recipient="Ada.Lovelace@EXAMPLE.Com")).json()["recipient"]
        == "Ada.Lovelace@example.com"
    )


def test_null_is_as_good_as_absent_for_optional_fields(api: Api) -> None:
    names = ("html", "reply_to", "client_reference", "send_after", "send_before")
    bodies = BodyFactory.build(), dict.fromkeys(names)
    first = api.post(bodies[0], key="one")
    second = api.post({**bodies[0], **bodies[1]}, key="one")
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.content == first.content


def test_white_space_is_kept_as_it_came(api: Api) -> None:
    api.post(BodyFactory.build(subject="  padded  ", message="\n  indented\n"))
    payload = json.loads(bytes(OutboxEvent.objects.get().payload))
    assert (payload["subject"], payload["message"]) == ("  padded  ", "\n  indented\n")
