"""The Idempotency-Key: which keys there are, whose they are, and what a repeated one is answered."""

from datetime import datetime, timedelta

import pytest
import time_machine

from notification_project.notifications.models import IdempotencyKey, Notification
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.conftest import Api, forget_redis, pointers
from tests.notification_project.factories import BodyFactory, ahead


@pytest.mark.fault(2)
def test_a_replay_is_the_stored_answer_byte_for_byte(api: Api) -> None:
    body = BodyFactory.build(metadata={"b": "2", "a": "ä"})
    first = api.post(body, key="abc-123")
    Notification.objects.update(status="SENT")  # what happened since must not change the answer
    second = api.post(body, key="abc-123")
    assert (first.status_code, second.status_code) == (202, 202)
    assert "Idempotent-Replayed" not in first.headers
    assert second["Idempotent-Replayed"] == "true"
    assert second.content == first.content
    for header in ("Location", "Content-Type", "Idempotency-Expires"):
        assert second[header] == first[header]
    assert Notification.objects.count() == OutboxEvent.objects.count() == 1


def test_the_answer_says_until_when_the_key_answers(api: Api) -> None:
    expires_at = datetime.fromisoformat(api.post(BodyFactory.build(), key="abc")["Idempotency-Expires"])
    assert abs(expires_at - ahead(seconds=86_400)) < timedelta(seconds=30)
    assert abs(IdempotencyKey.objects.get().expires_at - expires_at) < timedelta(seconds=1)


@pytest.mark.parametrize("pair", [('"abc"', "abc"), ("abc", '"abc"')])
def test_a_quoted_key_and_a_bare_one_are_the_same(api: Api, pair: tuple[str, str]) -> None:
    body = BodyFactory.build()
    assert api.post(body, key=pair[0]).content == api.post(body, key=pair[1]).content
    assert Notification.objects.count() == 1


@pytest.mark.parametrize("other", ["ABC", "abc.", "abd", "'abc'"])
def test_keys_that_a_collation_could_confuse_are_different(api: Api, other: str) -> None:
    body = BodyFactory.build()
    api.post(body, key="abc")
    assert "Idempotent-Replayed" not in api.post(body, key=other).headers
    assert Notification.objects.count() == 2


@pytest.mark.parametrize(
    "key",
    [
        "",
        '""',
        '"',
        "a,b",
        "a, b",
        "a b",
        '"a',
        'a"',
        '"a"b"',
        "ä",
        "a\tb",
        "a\x7f",
        "k" * 256,
        f'"{"k" * 256}"',
        "\u2028",
    ],
)
def test_what_is_no_key_is_400(api: Api, key: str) -> None:
    response = api.post(BodyFactory.build(), HTTP_IDEMPOTENCY_KEY=key)
    assert response.status_code == 400
    assert pointers(response) == {"/Idempotency-Key": "invalid"}
    assert not Notification.objects.exists()


@pytest.mark.parametrize("key", ["k", "k" * 255, f'"{"k" * 255}"', "!#$%&'()*+-./:;<=>?@[\\]^_`{|}~"])
def test_any_visible_ascii_is_a_key(api: Api, key: str) -> None:
    body = BodyFactory.build()
    assert api.post(body, HTTP_IDEMPOTENCY_KEY=key).status_code == 202
    assert api.post(body, HTTP_IDEMPOTENCY_KEY=key)["Idempotent-Replayed"] == "true"


@pytest.mark.fault(6)
@pytest.mark.parametrize("redis_forgets", [False, True])
def test_the_same_key_with_another_body_is_422(api: Api, redis_forgets: bool) -> None:
    body = BodyFactory.build()
    api.post(body, key="abc")
    if redis_forgets:
        forget_redis()
    refused = api.post({**body, "message": "another"}, key="abc")
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-key-reused")
    assert Notification.objects.count() == 1
    assert api.post(body, key="abc")["Idempotent-Replayed"] == "true"


def test_another_spelling_of_the_same_body_is_the_same_body(api: Api) -> None:
    first = api.post(b'{"recipient":"ada@example.com","subject":"A","message":"m"}', key="abc")
    second = api.post(
        b'{ "message": "\\u006d", "subject": "A", "recipient": "ada@EXAMPLE.com", "metadata": {} }', key="abc"
    )
    assert second.content == first.content


def test_keys_belong_to_a_client(api: Api, other_api: Api) -> None:
    body = BodyFactory.build()
    assert api.post(body, key="abc").json()["id"] != other_api.post(body, key="abc").json()["id"]
    assert Notification.objects.count() == 2


def test_keys_belong_to_a_path(api: Api) -> None:
    body = BodyFactory.build()
    assert api.post(body, key="abc").status_code == 202
    assert "Idempotent-Replayed" not in api.batch(body, key="abc").headers
    assert Notification.objects.count() == 2


@pytest.mark.parametrize("redis_forgets", [False, True])
def test_send_before_that_has_passed_meanwhile_does_not_break_a_replay(api: Api, redis_forgets: bool) -> None:
    body = BodyFactory.build(send_before=ahead(hours=1).isoformat())
    first = api.post(body, key="abc")
    with time_machine.travel(ahead(hours=2)):
        if redis_forgets:
            forget_redis()
        second = api.post(body, key="abc")
        assert api.post(body, key="another").status_code == 400
    assert (second.status_code, second.content) == (202, first.content)
