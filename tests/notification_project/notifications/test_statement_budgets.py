"""How many statements, commits and round trips a step may cost (docs/performance.md); none of these depends on the clock."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from django.db import connection

from notification_project.notifications import status
from notification_project.notifications.models import Notification
from shared_events.contracts.events import (
    EmailDeferred,
    EmailFailed,
    EmailSent,
    Failure,
    StatusEvent,
    encode,
    new_id,
    now,
)
from tests.notification_project.conftest import URL, Api, new_api
from tests.notification_project.factories import BodyFactory, NotificationFactory, ahead, record

Counting = Callable[[], AbstractContextManager[list[Any]]]


@pytest.fixture
def count_commits(monkeypatch: pytest.MonkeyPatch) -> Counting:
    @contextmanager
    def counting() -> Iterator[list[Any]]:
        commits: list[Any] = []
        commit = connection._commit  # type: ignore[attr-defined]

        def note() -> None:
            commits.append(1)
            commit()

        with monkeypatch.context() as patched:
            patched.setattr(connection, "_commit", note)
            yield commits

    return counting


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("key", ["abc", None])
def test_a_first_post_costs_six_statements_one_commit_and_five_round_trips(
    count_statements: Counting, count_commits: Counting, count_round_trips: Counting, key: str | None
) -> None:
    api = new_api()
    api.post(BodyFactory.build())  # opens the connections
    with count_statements() as statements, count_commits() as commits, count_round_trips() as trips:
        assert api.post(BodyFactory.build(), key=key).status_code == 202
    assert len(statements) <= 6, statements
    assert len(commits) == 1
    assert len(trips) <= 5, trips


def test_a_replay_from_the_cache_costs_one_statement(
    api: Api, count_statements: Counting, count_round_trips: Counting
) -> None:
    body = BodyFactory.build()
    api.post(body, key="abc")
    with count_statements() as statements, count_round_trips() as trips:
        assert api.post(body, key="abc")["Idempotent-Replayed"] == "true"
    assert len(statements) <= 1, statements
    assert len(trips) <= 2, trips


@pytest.mark.django_db(transaction=True)
def test_a_batch_of_a_thousand_costs_ten_statements_and_one_commit_on_mariadb(
    mariadb: None, count_statements: Counting, count_commits: Counting, count_round_trips: Counting
) -> None:
    api = new_api()
    api.post(BodyFactory.build())
    bodies = BodyFactory.build_batch(1_000)
    with count_statements() as statements, count_commits() as commits, count_round_trips() as trips:
        assert api.batch(*bodies, key="abc").status_code == 202
    assert len(statements) <= 10, [sql[:60] for sql in statements]
    assert len(commits) == 1
    assert len(trips) <= 5


@pytest.mark.parametrize("many", [1, 50])
def test_a_list_costs_two_statements_however_long(api: Api, count_statements: Counting, many: int) -> None:
    NotificationFactory.create_batch(many, client=api.client)
    with count_statements() as statements:
        assert len(api.get(URL).json()["results"]) == many
    assert len(statements) == 2, statements


def outcome(kind: type[StatusEvent], row: Notification, version: int, **fields: Any) -> bytes:
    event: Any = kind(
        event_id=new_id(), notification_id=row.pk, occurred_at=now(), producer="email-service", status_version=version, **fields
    )  # fmt: skip
    return encode(event)


@pytest.mark.django_db(transaction=True)
def test_a_batch_of_statuses_costs_two_statements_and_one_for_each_group(
    count_statements: Counting, count_commits: Counting
) -> None:
    client = new_api().client
    rows = NotificationFactory.create_batch(60, client=client)
    values = [outcome(EmailSent, row, 1, sent_at=now()) for row in rows[:40]]
    values += [outcome(EmailDeferred, row, 1, next_attempt_at=ahead(minutes=n)) for n, row in enumerate(rows[40:50])]
    failure = Failure(failure_class="recipient", code="5.1.1", detail="no such user")
    values += [outcome(EmailFailed, row, 2, failure=failure) for row in rows[50:]]
    with count_statements() as statements, count_commits() as commits:
        status.handle([record(value, offset=n) for n, value in enumerate(values)])
    assert len(statements) <= 2 + 3, [sql[:80] for sql in statements]
    assert len(commits) == 1
    assert Notification.objects.filter(status="SENT").count() == 40
    assert Notification.objects.filter(status="FAILED").count() == 10
