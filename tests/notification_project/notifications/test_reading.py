"""GET of one notification and its timeline."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from notification_project.notifications import status
from notification_project.notifications.models import Notification
from shared_events.contracts.events import EmailFailed, Failure, encode, new_id, now
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.conftest import URL, Api
from tests.notification_project.factories import (
    BodyFactory,
    NotificationFactory,
    OutboxEventFactory,
    ago,
    ahead,
    record,
)

CLOCKS_DIFFER = timedelta(seconds=2)  # the database's from this process's

ATTEMPTS = [
    {"n": 1, "at": "2030-01-01T00:00:00Z", "phase": "rcpt", "outcome": "deferred", "code": 451, "enhanced_code": "4.7.1",
     "reply": "greylisted", "host": "mx.example.com"},
    {"n": 2, "at": "2030-01-01T00:05:00Z", "phase": "final dot", "outcome": "sent", "code": 250, "enhanced_code": "2.0.0",
     "reply": "ok", "host": "mx.example.com"},
]  # fmt: skip
UNCERTAIN = {
    "phase": "final dot", "since": "2030-01-01T00:00:00Z", "host": "mx", "message_id": "<x@y>", "next": "an operator decides"
}  # fmt: skip


def shown(api: Api, **fields: Any) -> dict[str, Any]:
    row = NotificationFactory.create(client=api.client, **fields)
    body: dict[str, Any] = api.get(f"{URL}/{row.pk}").json()
    return body


def events(api: Api, row: Notification) -> list[dict[str, Any]]:
    response = api.get(f"{URL}/{row.pk}/events")
    assert response.status_code == 200
    found: list[dict[str, Any]] = response.json()["events"]
    return found


@pytest.mark.parametrize(
    ("status", "final"),
    [("PENDING", False), ("SENT", True), ("FAILED", True), ("CANCELLED", True), ("UNCERTAIN", False)],
)
def test_final_tells_clients_when_to_stop_asking(api: Api, status: str, final: bool) -> None:
    body = shown(api, status=status, uncertain=UNCERTAIN)
    assert (body["status"], body["final"]) == (status, final)


def test_failure_is_shown_of_a_failed_one_alone(api: Api) -> None:
    fields = {"failure_class": "recipient", "failure_code": "5.1.1", "failure_detail": "no such user"}
    failure = {"class": "recipient", "code": "5.1.1", "detail": "no such user"}
    assert shown(api, status="FAILED", **fields)["failure"] == failure
    assert shown(api, status="PENDING", **fields)["failure"] is None
    assert shown(api, status="SENT", **fields)["failure"] is None


def test_uncertain_is_shown_while_it_is(api: Api) -> None:
    assert shown(api, status="UNCERTAIN", uncertain=UNCERTAIN)["uncertain"] == UNCERTAIN
    assert shown(api, status="SENT", uncertain=UNCERTAIN)["uncertain"] is None


def test_attempts_is_a_number_and_next_attempt_at_is_shown_while_pending(api: Api) -> None:
    later = ahead(minutes=5)
    body = shown(api, attempts=[{**ATTEMPTS[0], "n": 23}], next_attempt_at=later, possible_duplicates=2)
    assert (body["attempts"], body["possible_duplicates"]) == (23, 2)
    assert body["next_attempt_at"] == later.isoformat().replace("+00:00", "Z")
    assert shown(api, status="FAILED", next_attempt_at=later)["next_attempt_at"] is None


def test_an_unchanged_notification_is_304_and_a_changed_one_200(api: Api) -> None:
    path = api.post(BodyFactory.build())["Location"]
    first = api.get(path)
    same = api.get(path, headers={"If-None-Match": first["ETag"]})
    assert (same.status_code, same.content, same["ETag"]) == (304, b"", first["ETag"])
    assert api.get(path, headers={"If-None-Match": f'W/"x", {first["ETag"]}'}).status_code == 304
    Notification.objects.update(status="SENT", sent_at=ago(seconds=1))
    changed = api.get(path, headers={"If-None-Match": first["ETag"]})
    assert (changed.status_code, changed.json()["status"]) == (200, "SENT")
    assert changed["ETag"] != first["ETag"]


def test_head_is_answered_as_get_without_its_body(api: Api) -> None:
    path = api.post(BodyFactory.build())["Location"]
    response = api.request("HEAD", path)
    assert (response.status_code, response.content) == (200, b"")
    assert response["ETag"] == api.get(path)["ETag"]


def test_the_timeline_of_a_new_one_is_its_creation(api: Api) -> None:
    accepted = api.post(BodyFactory.build())
    body = api.get(f"{accepted['Location']}/events").json()
    assert body == {"events": [{"at": accepted.json()["created_at"], "event": "created", "detail": {}}]}


def test_the_timeline_tells_the_way_over_both_services(api: Api) -> None:
    row = NotificationFactory.create(
        client=api.client, status="SENT", sent_at=ago(seconds=1), attempts=ATTEMPTS, possible_duplicates=1
    )
    event = OutboxEventFactory.create(notification=row, publication=3)
    found = events(api, row)
    assert [entry["event"] for entry in found] == ["created", "published", "attempt", "attempt", "sent"]
    assert found[1]["at"] == event.published_at.isoformat().replace("+00:00", "Z")
    assert found[1]["detail"] == {"publications": 3}
    assert found[2]["at"] == ATTEMPTS[0]["at"]
    assert found[2]["detail"] == {name: value for name, value in ATTEMPTS[0].items() if name != "at"}
    assert found[4]["detail"] == {"possible_duplicates": 1}


@pytest.mark.parametrize(
    ("fields", "last"),
    [
        (
            {"status": "FAILED", "failure_class": "size", "failure_code": "5.3.4"},
            ("failed", {"class": "size", "code": "5.3.4"}),
        ),
        ({"status": "UNCERTAIN", "uncertain": UNCERTAIN}, ("uncertain", UNCERTAIN)),
        ({"status": "CANCELLED"}, ("cancelled", {})),
        ({"next_attempt_at": ahead(minutes=5)}, ("next attempt", {})),
    ],
)
def test_the_timeline_ends_with_what_is_now(api: Api, fields: dict[str, Any], last: tuple[str, Any]) -> None:
    entry = events(api, NotificationFactory.create(client=api.client, **fields))[-1]
    assert (entry["event"], entry["detail"]) == last


def test_the_timeline_says_when_it_was_cancelled(api: Api) -> None:
    before = now()
    path = api.post(BodyFactory.build(send_after=ahead(minutes=5).isoformat()))["Location"]
    assert api.request("POST", f"{path}/cancel").status_code == 200
    entry = api.get(f"{path}/events").json()["events"][-1]
    assert entry["event"] == "cancelled"
    assert before - CLOCKS_DIFFER <= datetime.fromisoformat(entry["at"]) <= now() + CLOCKS_DIFFER


def test_the_timeline_says_when_it_failed(api: Api) -> None:
    row = NotificationFactory.create(client=api.client)
    failed = EmailFailed(
        event_id=new_id(), notification_id=row.pk, occurred_at=ago(minutes=3), producer="x", status_version=1,
        failure=Failure(failure_class="size", code="5.3.4", detail="too big"),
    )  # fmt: skip
    status.handle([record(encode(failed))])
    assert datetime.fromisoformat(events(api, row)[-1]["at"]) == failed.occurred_at


def test_the_timeline_does_not_read_the_body(api: Api, count_statements: Any) -> None:
    accepted = api.post(BodyFactory.build())
    with count_statements() as statements:
        api.get(f"{accepted['Location']}/events")
    assert len(statements) == 3
    assert not any("payload" in sql for sql in statements)
    assert OutboxEvent.objects.count() == 1


def test_the_message_is_never_shown(api: Api) -> None:
    accepted = api.post(BodyFactory.build(message="the private words", html="<p>the private words</p>"))
    for path in (accepted["Location"], f"{accepted['Location']}/events", URL):
        assert "private words" not in json.dumps(api.get(path).json())
