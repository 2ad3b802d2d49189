"""A POST whose transaction fails after its first row: nothing of it remains, and the same key is executed afresh."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError, connection, transaction

from notification_project.notifications import submission
from notification_project.notifications.models import IdempotencyKey, Notification
from shared_events.contracts.events import new_id
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.conftest import Api, forget_redis, new_api
from tests.notification_project.factories import BodyFactory, NotificationFactory, OutboxEventFactory

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def last_insert_fails(error: int) -> Iterator[None]:
    """The key's row and the notification are written, and the event is refused with the server's `error`."""

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith(f"INSERT INTO {connection.ops.quote_name('outbox_events')}"):
            raise OperationalError(error, "The table is full: no space left on device")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail):
        yield


def stored() -> list[int]:
    return [model.objects.count() for model in (IdempotencyKey, Notification, OutboxEvent)]


@pytest.mark.fault(1, 64)
@pytest.mark.parametrize(
    "error", [1021, 1114, 1030, 2013], ids=["disk full", "table full", "no space", "connection lost"]
)
def test_a_request_that_fails_at_its_last_row_leaves_none_and_its_key_is_executed_afresh(error: int) -> None:
    api, body = new_api(), BodyFactory.build()
    with last_insert_fails(error):
        refused = api.post(body, key="abc")
    assert (refused.status_code, refused.json()["code"]) == (503, "database-unavailable")
    assert int(refused["Retry-After"]) >= 1
    assert stored() == [0, 0, 0]
    accepted = api.post(body, key="abc")
    assert (accepted.status_code, "Idempotent-Replayed" in accepted.headers) == (202, False)
    assert stored() == [1, 1, 1]


@contextmanager
def locked_row(event_id: UUID) -> Iterator[None]:
    """Another session has inserted an event with this id, and does not commit."""
    is_locked, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                OutboxEventFactory.create(id=event_id, notification=NotificationFactory.build(client_id=1, client=None))
                is_locked.set()
                may_end.wait(30)
                transaction.set_rollback(True)
        finally:
            connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert is_locked.wait(30)
    try:
        yield
    finally:
        may_end.set()
        holder.join(30)


@pytest.mark.fault(9)
def test_a_lock_wait_that_times_out_at_the_last_row_rolls_the_rows_before_it_back(
    mariadb: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, body, event_id = new_api(), BodyFactory.build(), new_id()
    ids = iter([new_id(), event_id])
    with monkeypatch.context() as patched, locked_row(event_id):
        patched.setattr(submission, "new_id", lambda: next(ids))
        refused = api.post(body, key="abc")
    assert (refused.status_code, refused.json()["code"], refused["Retry-After"]) == (409, "in-progress", "1")
    assert stored() == [0, 0, 0]  # InnoDB has undone the last statement alone
    assert api.post(body, key="abc").status_code == 202
    assert stored() == [1, 1, 1]


@pytest.mark.fault(11)
@pytest.mark.parametrize(("key", "status"), [(None, 401), ("nfx_wrong.key", 401)], ids=["no credentials", "wrong ones"])
def test_a_stranger_cannot_use_up_a_key(key: str | None, status: int) -> None:
    api, body = new_api(), BodyFactory.build()
    assert Api(api.client, key).post(body, key="abc").status_code == status
    assert stored() == [0, 0, 0]
    accepted = api.post(body, key="abc")
    assert (accepted.status_code, "Idempotent-Replayed" in accepted.headers) == (202, False)


@pytest.mark.fault(2, 7)
def test_an_answer_that_never_arrived_is_given_again_whatever_redis_remembers() -> None:
    api, body = new_api(), BodyFactory.build()
    lost = api.post(body, key="abc").content  # the client never saw it
    for redis_forgot in (False, True):
        if redis_forgot:
            forget_redis()
        again = api.post(body, key="abc")
        assert (again.status_code, again["Idempotent-Replayed"], again.content) == (202, "true", lost)
    assert stored() == [1, 1, 1]
