"""What a POST answers when the database fails under it. Nothing is stored unless it says so, and the key stays usable."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection
from pytest_django import Settings

from notification_project.notifications.models import IdempotencyKey, Notification
from notification_project.notifications.submission import Acceptance
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.conftest import Api, forget_redis, new_api
from tests.notification_project.factories import BodyFactory, OutboxEventFactory, ago, ahead

LOST = [2006, 2013]


@contextmanager
def failing(error: int, statement: str, times: int = 1_000) -> Iterator[list[str]]:
    """The server's error `error` for the first `times` statements that contain `statement`."""
    failed: list[str] = []

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if statement in sql and len(failed) < times:
            failed.append(sql)
            raise OperationalError(error, "words of the server that no client may see")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail):
        yield failed


def assert_503(response: Any, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (503, code), response.content
    assert int(response["Retry-After"]) >= 1
    assert b"words of the server" not in response.content


def assert_nothing_stored() -> None:
    assert not any(model.objects.exists() for model in (Notification, OutboxEvent, IdempotencyKey))


@pytest.mark.fault(9)
@pytest.mark.parametrize("key", ["abc", None])
@pytest.mark.parametrize("table", ["notifications", "outbox_events"])
def test_a_deadlock_is_tried_again_as_a_whole(api: Api, table: str, key: str | None) -> None:
    with failing(1213, f"INSERT INTO {connection.ops.quote_name(table)}", times=2) as failed:
        assert api.post(BodyFactory.build(), key=key).status_code == 202
    assert len(failed) == 2
    assert Notification.objects.count() == OutboxEvent.objects.count() == 1


@pytest.mark.fault(9)
def test_three_deadlocks_are_503(api: Api) -> None:
    with failing(1213, "INSERT INTO") as failed:
        assert_503(api.post(BodyFactory.build(), key="abc"), "database-busy")
    assert len(failed) == 3
    assert_nothing_stored()
    assert api.post(BodyFactory.build(), key="abc").status_code == 202


@pytest.mark.fault(9)
def test_a_lock_time_out_with_a_key_is_409_and_without_one_503(api: Api) -> None:
    with failing(1205, "INSERT INTO"):
        with_key = api.post(BodyFactory.build(), key="abc")
        assert_503(api.post(BodyFactory.build()), "database-busy")
    assert (with_key.status_code, with_key.json()["code"], with_key["Retry-After"]) == (409, "in-progress", "1")
    assert_nothing_stored()
    assert api.post(BodyFactory.build(), key="abc").status_code == 202


@pytest.mark.fault(1, 64)
@pytest.mark.parametrize("error", [2002, 2006, 2013, 1040, 1290, 1021])
@pytest.mark.parametrize("statement", ["SELECT", "INSERT INTO"])
def test_a_database_that_is_away_or_full_is_503(api: Api, error: int, statement: str) -> None:
    with failing(error, statement):
        assert_503(api.post(BodyFactory.build(), key="abc"), "database-unavailable")
    assert_nothing_stored()
    assert api.post(BodyFactory.build(), key="abc").status_code == 202


def test_a_defect_is_500_and_shows_nothing_of_it(api: Api) -> None:
    with failing(1064, "INSERT INTO"):
        response = api.post(BodyFactory.build(), key="abc")
    assert (response.status_code, response.json()["code"]) == (500, "internal-error")
    assert b"words of the server" not in response.content
    assert_nothing_stored()


@pytest.mark.django_db(transaction=True)
def test_a_server_that_does_not_listen_is_503(mariadb: None, monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    api = new_api()
    connection.close()
    with monkeypatch.context() as patched:
        patched.setitem(connection.settings_dict, "PORT", closed_port)
        assert_503(api.post(BodyFactory.build(), key="abc"), "database-unavailable")
        assert_503(api.get(), "database-unavailable")
    assert api.post(BodyFactory.build(), key="abc").status_code == 202


@contextmanager
def connection_lost_in_commit(monkeypatch: pytest.MonkeyPatch, error: int, *, committed: bool) -> Iterator[None]:
    commit = connection._commit  # type: ignore[attr-defined]

    def lose() -> None:
        if committed:
            commit()
        raise OperationalError(error, "words of the server that no client may see")

    with monkeypatch.context() as patched:
        patched.setattr(connection, "_commit", lose)
        yield


@pytest.mark.fault(4)
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", LOST)
@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_of_unknown_outcome_is_settled_by_the_same_key(
    monkeypatch: pytest.MonkeyPatch, error: int, committed: bool
) -> None:
    api, body = new_api(), BodyFactory.build()
    with connection_lost_in_commit(monkeypatch, error, committed=committed):
        response = api.post(body, key="abc")
    assert_503(response, "outcome-unknown")
    assert "same Idempotency-Key" in response.json()["detail"]
    assert Notification.objects.count() == (1 if committed else 0)
    again = api.post(body, key="abc")
    assert again.status_code == 202
    assert ("Idempotent-Replayed" in again.headers) is committed
    assert Notification.objects.count() == OutboxEvent.objects.count() == 1


@pytest.mark.fault(4)
@pytest.mark.django_db(transaction=True)
def test_without_a_key_an_unknown_outcome_tells_to_look_by_client_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    api = new_api()
    with connection_lost_in_commit(monkeypatch, 2013, committed=True):
        response = api.post(BodyFactory.build(client_reference="order-1"))
    assert_503(response, "outcome-unknown")
    assert "client_reference" in response.json()["detail"]
    assert len(api.get("/api/v1/notifications?client_reference=order-1").json()["results"]) == 1


def overdue_event(**delta: float) -> OutboxEvent:
    event: OutboxEvent = OutboxEventFactory.create(status="PENDING", due_at=ago(**delta), published_at=None)
    return event


@pytest.mark.fault(16)
def test_an_outbox_that_is_too_old_is_503_for_single_ones_and_batches(api: Api, settings: Settings) -> None:
    overdue_event(seconds=settings.OUTBOX_MAX_AGE_SECONDS + 60)
    for response in (api.post(BodyFactory.build(), key="abc"), api.batch(BodyFactory.build(), key="abc")):
        assert_503(response, "outbox-too-old")
    assert not Notification.objects.exists()
    assert not IdempotencyKey.objects.exists()


def test_an_outbox_that_is_young_enough_or_scheduled_is_not_too_old(api: Api, settings: Settings) -> None:
    overdue_event(seconds=settings.OUTBOX_MAX_AGE_SECONDS - 60)
    OutboxEventFactory.create(status="PENDING", due_at=ahead(days=30), created_at=ago(days=300))
    OutboxEventFactory.create(status="PUBLISHED", created_at=ago(days=300))
    assert api.post(BodyFactory.build()).status_code == 202


def test_an_old_outbox_breaks_no_replay_even_where_redis_forgot(api: Api, acceptance: Acceptance) -> None:
    body = BodyFactory.build()
    first = api.post(body, key="abc")
    overdue_event(days=30)
    forget_redis()
    acceptance._age_checked_at = 0.0
    assert api.post(BodyFactory.build()).status_code == 503
    assert api.post(body, key="abc").content == first.content


def test_the_outboxs_age_is_asked_at_most_once_a_second(api: Api, acceptance: Acceptance) -> None:
    assert api.post(BodyFactory.build()).status_code == 202
    overdue_event(days=30)
    acceptance._age_checked_at += 1_000  # a process that asked just now
    assert api.post(BodyFactory.build()).status_code == 202
    acceptance._age_checked_at = 0.0
    assert api.post(BodyFactory.build()).status_code == 503
