"""POST /notifications/{id}/resolve: the operator's word goes to the e-mail service, audited."""

from typing import Any

import pytest

from notification_project.notifications.models import Notification
from shared_events.contracts.events import EmailResolutionRequested, decode
from shared_events.dead_letters.models import AuditEntry
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.conftest import URL, Api, new_api
from tests.notification_project.factories import NotificationFactory

pytestmark = pytest.mark.django_db


def uncertain(api: Api, **fields: Any) -> Notification:
    row: Notification = NotificationFactory.create(client=api.client, status="UNCERTAIN", status_version=1, **fields)
    return row


def resolve(api: Api, row: Notification, **body: Any) -> Any:
    return api.post({"resolution": "delivered", "reason": "seen in the log", **body}, path=f"{URL}/{row.pk}/resolve")


@pytest.mark.parametrize("resolution", ["delivered", "not_delivered", "resend"])
def test_a_resolution_is_stored_as_an_event_and_uncertain_stands(api: Api, resolution: str) -> None:
    row = uncertain(api, generation=3)
    answer = resolve(api, row, resolution=resolution)
    assert (answer.status_code, answer.json()["status"]) == (202, "UNCERTAIN")
    event = decode(bytes(OutboxEvent.objects.get().payload))
    assert isinstance(event, EmailResolutionRequested)
    assert (event.notification_id, event.resolution, event.generation, event.reason) == (
        row.pk,
        resolution,
        3,
        "seen in the log",
    )


def test_a_resolution_is_audited(api: Api) -> None:
    row = uncertain(api)
    resolve(api, row)
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.subject_id, entry.operator, entry.detail) == (
        "resolve",
        row.pk,
        api.client.name,
        "delivered",
    )


@pytest.mark.parametrize("status", ["PENDING", "SENT", "FAILED", "CANCELLED"])
def test_only_what_is_uncertain_can_be_resolved(api: Api, status: str) -> None:
    row = uncertain(api)
    Notification.objects.filter(pk=row.pk).update(status=status)
    answer = resolve(api, row)
    assert (answer.status_code, answer.json()["code"]) == (409, "not-uncertain")
    assert not OutboxEvent.objects.exists()


@pytest.mark.parametrize(
    "body", [{"resolution": "maybe"}, {"reason": ""}, {"reason": " \n"}, {"reason": "x" * 501}, {"unknown": 1}]
)
def test_a_bad_resolution_is_400_and_stores_nothing(api: Api, body: dict[str, Any]) -> None:
    answer = resolve(api, uncertain(api), **body)
    assert answer.status_code == 400
    assert not OutboxEvent.objects.exists()


def test_resolving_needs_the_scope_operate(db: None) -> None:
    api = new_api("send", "read")
    assert resolve(api, uncertain(api)).status_code == 403


def test_another_clients_notification_is_not_found(api: Api, other_api: Api) -> None:
    assert resolve(other_api, uncertain(api)).status_code == 404
