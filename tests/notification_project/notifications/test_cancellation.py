"""POST /notifications/{id}/cancel: truthful, because only what was never claimed can be cancelled."""

from typing import Any

import pytest
from django.db.models import F

from notification_project.notifications.models import Notification
from shared_events.outbox.claim import claim_due
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.conftest import Api
from tests.notification_project.factories import BodyFactory, ahead


def accept(api: Api, **fields: Any) -> str:
    location: str = api.post(BodyFactory.build(**fields))["Location"]
    return location


def cancel(api: Api, location: str) -> Any:
    return api.request("POST", f"{location}/cancel")


def claim() -> int:
    return len(claim_due(OutboxEvent, ("id",), batch=10, lease_seconds=60, token=7, claims=F("claims") + 1))


def test_an_unclaimed_one_is_cancelled_and_never_published(api: Api) -> None:
    location = accept(api)
    response = cancel(api, location)
    assert (response.status_code, response.json()["status"], response.json()["final"]) == (200, "CANCELLED", True)
    assert api.get(location).json() == response.json()
    event, row = OutboxEvent.objects.get(), Notification.objects.get()
    assert (event.status, event.due_at, row.reconcile_at) == ("CANCELLED", None, None)
    assert claim() == 0


def test_a_second_cancel_is_200_again(api: Api) -> None:
    location = accept(api)
    assert cancel(api, location).content == cancel(api, location).content
    assert cancel(api, location).status_code == 200


def test_a_scheduled_one_is_cancelled_before_its_time(api: Api) -> None:
    location = accept(api, send_after=ahead(days=3).isoformat())
    assert claim() == 0
    assert cancel(api, location).status_code == 200
    assert OutboxEvent.objects.get().due_at is None


@pytest.mark.parametrize("after", ["claimed", "released", "published"])
def test_what_was_claimed_once_cannot_be_cancelled_any_more(api: Api, after: str) -> None:
    location = accept(api)
    assert claim() == 1
    if after == "released":
        OutboxEvent.objects.all().release()
    if after == "published":
        OutboxEvent.objects.all().mark_published()
    response = cancel(api, location)
    assert (response.status_code, response.json()["code"]) == (409, "not-cancellable")
    assert "PENDING" in response.json()["detail"]
    assert Notification.objects.get().status == "PENDING"
    assert OutboxEvent.objects.get().status != "CANCELLED"


@pytest.mark.parametrize("status", ["SENT", "FAILED", "UNCERTAIN"])
def test_the_refusal_says_what_it_is_now(api: Api, status: str) -> None:
    location = accept(api)
    claim()
    Notification.objects.update(status=status)
    response = cancel(api, location)
    assert response.status_code == 409
    assert status in response.json()["detail"]
    assert Notification.objects.get().status == status


def test_cancelling_one_leaves_the_others(api: Api) -> None:
    first, second = accept(api), accept(api)
    cancel(api, first)
    assert api.get(second).json()["status"] == "PENDING"
    assert claim() == 1


def test_a_cancelled_ones_key_is_answered_as_before(api: Api) -> None:
    body = BodyFactory.build()
    first = api.post(body, key="abc")
    cancel(api, first["Location"])
    assert api.post(body, key="abc").content == first.content
    assert Notification.objects.count() == 1
