"""Redis makes idempotency quick; empty, flushed or away it changes speed, never the result."""

import time
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import IntegrityError, transaction
from django_redis import get_redis_connection
from pytest_django import Settings

from notification_project.notifications import idempotency
from notification_project.notifications.models import IdempotencyKey, Notification
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.conftest import Api, forget_redis
from tests.notification_project.factories import BodyFactory, ago

MARK_KEYS = "notifyx:idempotency:*"


def cached() -> dict[bytes, Any]:
    client: Any = get_redis_connection("default")
    return {key: client.get(key) for key in client.scan_iter(MARK_KEYS)}


def life_seconds() -> int:
    client: Any = get_redis_connection("default")
    return int(client.ttl(next(client.scan_iter(MARK_KEYS))))


def test_the_stored_answer_takes_the_marks_place_for_the_keys_life(api: Api) -> None:
    accepted = api.post(BodyFactory.build(), key="abc")
    ((_, value),) = cached().items()
    assert accepted.content in value
    assert 86_000 < life_seconds() <= 86_400


@pytest.mark.fault(11)
@pytest.mark.parametrize(
    "body", [BodyFactory.build(subject=""), b"{", BodyFactory.build(send_before=ago(hours=1).isoformat())]
)
def test_a_refused_request_leaves_no_mark(api: Api, body: Any) -> None:
    assert api.post(body, key="abc").status_code == 400
    assert not cached()
    assert not IdempotencyKey.objects.exists()


@pytest.mark.fault(1)
def test_a_crashing_request_leaves_no_mark(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(OutboxEvent.objects, "bulk_create", crash)
        assert api.post(BodyFactory.build(), key="abc").status_code == 500
    assert not cached()
    assert not Notification.objects.exists()
    assert not IdempotencyKey.objects.exists()
    assert api.post(BodyFactory.build(), key="abc").status_code == 202


@pytest.mark.fault(1, 6)
def test_a_mark_without_a_row_is_409_and_tells_when_to_repeat(api: Api) -> None:
    key = idempotency.key_of("abc", api.client, "POST", "/api/v1/notifications")
    assert key is not None
    get_redis_connection("default").set(key.cache_key, idempotency.MARK, ex=idempotency.MARK_SECONDS)
    refused = api.post(BodyFactory.build(), key="abc")
    assert (refused.status_code, refused.json()["code"], refused["Retry-After"]) == (409, "in-progress", "1")
    assert not Notification.objects.exists()
    assert cached()[key.cache_key.encode()] == idempotency.MARK  # it belongs to the other request
    assert life_seconds() <= 30


@pytest.mark.fault(2, 3)
def test_a_mark_with_a_row_is_answered_by_the_row(api: Api) -> None:
    body = BodyFactory.build()
    first = api.post(body, key="abc")
    ((name, _),) = cached().items()
    get_redis_connection("default").set(name, idempotency.MARK)
    second = api.post(body, key="abc")
    assert (second["Idempotent-Replayed"], second.content) == ("true", first.content)


@pytest.mark.fault(62)
@pytest.mark.parametrize("value", [b"", b"of another version", b"\x93\x01\x02\x03"])
def test_a_cached_answer_of_another_version_is_answered_by_the_row(api: Api, value: bytes) -> None:
    body = BodyFactory.build()
    first = api.post(body, key="abc")
    ((name, _),) = cached().items()
    get_redis_connection("default").set(name, value)
    assert api.post(body, key="abc").content == first.content


@pytest.mark.fault(7)
def test_a_flush_between_two_requests_makes_no_duplicate(api: Api) -> None:
    body = BodyFactory.build()
    first = api.post(body, key="abc")
    forget_redis()
    second = api.post(body, key="abc")
    assert (second.status_code, second["Idempotent-Replayed"], second.content) == (202, "true", first.content)
    assert Notification.objects.count() == OutboxEvent.objects.count() == 1


@pytest.mark.fault(3)
def test_a_crash_between_commit_and_cache_is_healed_by_the_replay(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    body = BodyFactory.build()
    with monkeypatch.context() as patched:
        patched.setattr(idempotency.KeyStore, "finish", lambda *_, **__: None)
        first = api.post(body, key="abc")
    forget_redis()  # the mark has expired
    assert api.post(body, key="abc").content == first.content
    ((_, value),) = cached().items()
    assert first.content in value
    assert 0 < life_seconds() <= 86_400


@pytest.mark.fault(7)
@pytest.mark.parametrize("outage", ["redis_away", "silent_redis"])
def test_without_redis_there_is_no_duplicate_no_5xx_and_no_long_wait(
    api: Api, outage: str, request: pytest.FixtureRequest
) -> None:
    body = BodyFactory.build()
    before = api.post(body, key="before")
    request.getfixturevalue(outage)
    for answered in (before, api.post(body, key="during")):
        key = "before" if answered is before else "during"
        began = time.monotonic()
        replay = api.post(body, key=key)
        assert time.monotonic() - began < 3
        assert (replay.status_code, replay["Idempotent-Replayed"], replay.content) == (202, "true", answered.content)
    assert api.post({**body, "subject": "another"}, key="during").status_code == 422
    assert Notification.objects.count() == 2


def test_a_silent_redis_costs_its_time_out_once_and_nothing_after(api: Api, silent_redis: None) -> None:
    began = time.monotonic()
    assert api.post(BodyFactory.build(), key="first").status_code == 202
    assert 0.15 < time.monotonic() - began < 3
    began = time.monotonic()
    for n in range(3):
        assert api.post(BodyFactory.build(), key=f"next-{n}").status_code == 202
    assert time.monotonic() - began < 0.75


def test_an_expired_row_is_taken_over_once(api: Api) -> None:
    body = BodyFactory.build()
    first = api.post(body, key="abc")
    IdempotencyKey.objects.update(expires_at=ago(seconds=1))
    forget_redis()
    second = api.post({**body, "subject": "another"}, key="abc")
    assert second.status_code == 202
    assert second.json()["id"] != first.json()["id"]
    row = IdempotencyKey.objects.get()
    assert bytes(row.body) == second.content
    assert row.expires_at > row.created_at > ago(seconds=30)
    forget_redis()
    assert api.post({**body, "subject": "another"}, key="abc").content == second.content
    assert Notification.objects.count() == OutboxEvent.objects.count() == 2


def test_a_take_over_is_guarded_so_that_only_one_of_two_succeeds(api: Api) -> None:
    api.post(BodyFactory.build(), key="abc")
    IdempotencyKey.objects.update(expires_at=ago(seconds=1))
    key = idempotency.key_of("abc", api.client, "POST", "/api/v1/notifications")
    assert key is not None
    rows = [idempotency.new_row(key, bytes(32), status_code=202, location="", body=b"") for _ in range(2)]
    assert [idempotency.take_over(row) for row in rows] == [True, False]
    with pytest.raises(IntegrityError), transaction.atomic():
        rows[1].save(force_insert=True)


def test_a_key_lives_as_long_as_the_setting_says(api: Api, settings: Settings) -> None:
    settings.IDEMPOTENCY_TTL_SECONDS = 7
    api.post(BodyFactory.build(), key="abc")
    row = IdempotencyKey.objects.get()
    assert (row.expires_at - row.created_at).total_seconds() == 7
    assert 0 < life_seconds() <= 7


def test_the_wake_up_rings_once_for_each_accepted_request_and_not_for_a_replay(api: Api) -> None:
    client: Any = get_redis_connection("default")
    bell = f"notifyx:wake:{django_settings.PRODUCER}"
    body = BodyFactory.build()
    api.post(body, key="abc")
    assert client.lpop(bell) == b"1"
    api.post(body, key="abc")
    assert client.lpop(bell) is None
    api.post(BodyFactory.build())
    api.post(BodyFactory.build())
    assert client.llen(bell) == 1
