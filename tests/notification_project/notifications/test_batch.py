"""POST /notifications/batch: 1 to 1,000 notifications, all or none, under one key."""

from typing import Any

import msgspec
import pytest
from pytest_django import Settings

from notification_project.notifications.models import IdempotencyKey, Notification
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.conftest import URL, Api, forget_redis, pointers
from tests.notification_project.factories import BodyFactory, ago, ahead


def bodies(many: int) -> list[Any]:
    built: list[Any] = BodyFactory.build_batch(many)
    return built


def assert_refused(response: Any, expected: dict[str, str]) -> None:
    assert response.status_code == 400, response.content
    assert pointers(response) == expected
    assert not any(model.objects.exists() for model in (Notification, OutboxEvent, IdempotencyKey))


@pytest.mark.parametrize("many", [1, 3, 1_000])
def test_each_item_is_accepted_in_its_place(api: Api, many: int) -> None:
    sent = bodies(many)
    response = api.batch(*sent)
    assert response.status_code == 202
    assert "Location" not in response.headers
    items = response.json()["notifications"]
    assert [item["index"] for item in items] == list(range(many))
    assert {item["status"] for item in items} == {"PENDING"}
    assert set(items[0]) == {"index", "id", "status"}
    recipients = {str(row.pk): row.recipient for row in Notification.objects.all()}
    assert [recipients[item["id"]] for item in items] == [body["recipient"] for body in sent]
    assert {str(key) for key in OutboxEvent.objects.values_list("aggregate_id", flat=True)} == set(recipients)


@pytest.mark.parametrize("many", [0, 1_001])
def test_fewer_than_one_and_more_than_a_thousand_are_refused(api: Api, many: int) -> None:
    response = api.batch(*bodies(many))
    assert response.status_code == 400
    assert set(pointers(response)) == {"/notifications"}
    assert not Notification.objects.exists()


@pytest.mark.parametrize("body", ["[]", "null", '"x"', "1"])
def test_what_is_no_object_is_refused(api: Api, body: str) -> None:
    response = api.post(body, path=f"{URL}/batch")
    assert (response.status_code, set(pointers(response))) == (400, {""})


@pytest.mark.parametrize("value", [None, {}, "x", 1, {"0": {}}])
def test_notifications_is_an_array(api: Api, value: Any) -> None:
    response = api.post({"notifications": value}, path=f"{URL}/batch")
    assert (response.status_code, set(pointers(response))) == (400, {"/notifications"})


def test_a_missing_and_an_unknown_field_are_refused(api: Api) -> None:
    assert set(pointers(api.post("{}", path=f"{URL}/batch"))) == {"/notifications"}
    response = api.post({"notifications": bodies(1), "mode/x": 1}, path=f"{URL}/batch")
    assert_refused(response, {"/mode~1x": "unknown-field"})


def test_all_errors_are_said_at_once_each_with_its_pointer(api: Api) -> None:
    response = api.batch(
        BodyFactory.build(),
        BodyFactory.build(subject="a\nb"),
        BodyFactory.build(),
        BodyFactory.build(recipient="x", cc="y"),
        BodyFactory.build(metadata={"a": 1}),
    )
    expected = {
        "/notifications/1/subject": "line-break", "/notifications/3/recipient": "invalid",
        "/notifications/3/cc": "unknown-field", "/notifications/4/metadata/a": "invalid",
    }  # fmt: skip
    assert_refused(response, expected)


@pytest.mark.parametrize("item", [None, 1, "x", []])
def test_an_item_that_is_no_object_has_its_pointer(api: Api, item: Any) -> None:
    response = api.batch(BodyFactory.build(), item)
    assert (response.status_code, set(pointers(response))) == (400, {"/notifications/1"})


def test_errors_of_the_time_of_day_and_of_the_event_have_pointers_too(api: Api) -> None:
    response = api.batch(
        BodyFactory.build(),
        BodyFactory.build(send_before=ago(hours=1).isoformat()),
        BodyFactory.build(send_after=ahead(days=400).isoformat()),
        BodyFactory.build(message='"' * 300_000, html='"' * 300_000),
    )
    expected = {
        "/notifications/1/send_before": "passed", "/notifications/2/send_after": "too-far",
        "/notifications/3/message": "too-large",
    }  # fmt: skip
    assert_refused(response, expected)


def test_a_failure_at_the_last_item_stores_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    bulk_create = OutboxEvent.objects.bulk_create

    def crash_after(*args: Any, **options: Any) -> None:
        bulk_create(*args, **options)
        raise ZeroDivisionError

    monkeypatch.setattr(OutboxEvent.objects, "bulk_create", crash_after)
    assert api.batch(*bodies(5), key="abc").status_code == 500
    assert not any(model.objects.exists() for model in (Notification, OutboxEvent, IdempotencyKey))


@pytest.mark.parametrize("redis_forgets", [False, True])
def test_a_replayed_batch_is_the_stored_answer(api: Api, redis_forgets: bool) -> None:
    sent = bodies(5)
    first = api.batch(*sent, key="abc")
    if redis_forgets:
        forget_redis()
    second = api.batch(*sent, key="abc")
    assert (second.status_code, second.content, second["Idempotent-Replayed"]) == (202, first.content, "true")
    assert api.batch(*sent[::-1], key="abc").status_code == 422
    assert Notification.objects.count() == 5


def test_a_batch_may_send_to_one_address_as_often_as_its_limit_says(api: Api, settings: Settings) -> None:
    settings.RATE_LIMIT_RECIPIENT = "1000/m"
    same = [BodyFactory.build(recipient="ada@example.com") for _ in range(1_000)]
    assert api.batch(*same).status_code == 202
    assert api.post(BodyFactory.build(recipient="ada@example.com")).status_code == 429


def test_a_batch_larger_than_a_single_body_is_taken(api: Api) -> None:
    large = [BodyFactory.build(message="x" * 400_000) for _ in range(6)]
    assert api.batch(*large).status_code == 202


def test_the_worst_case_of_eight_mebibytes_is_taken(api: Api) -> None:
    """A quote is two bytes in the body and four in the statement that stores it, which the database's packet limits."""
    large = [BodyFactory.build(message='"' * 220_000, html='"' * 220_000) for _ in range(9)]
    left = 8 * 1024**2 - len(msgspec.json.encode({"notifications": large})) - 100
    body = {"notifications": [*large, BodyFactory.build(message='"' * (left // 2 - 50))]}
    assert 8 * 1024**2 - 1_000 < len(msgspec.json.encode(body)) <= 8 * 1024**2
    assert api.post(body, path=f"{URL}/batch").status_code == 202


def test_the_worst_case_of_metadata_is_taken(api: Api) -> None:
    """A character beyond the basic plane is four bytes in the body and fourteen in the statement."""
    metadata = {str(n): "🎉" * 512 for n in range(20)}
    assert api.batch(*[BodyFactory.build(metadata=metadata) for _ in range(200)]).status_code == 202
    assert Notification.objects.count() == 200
    assert Notification.objects.earliest("pk").metadata == metadata
