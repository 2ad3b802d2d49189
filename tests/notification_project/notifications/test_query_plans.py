"""EXPLAIN on MariaDB with some thousand rows: each hot query walks the index that was made for it, and sorts nothing."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.http import QueryDict
from pytest_django import DjangoDbBlocker

from notification_project.notifications import idempotency, listing
from notification_project.notifications.cancellation import cancel
from notification_project.notifications.models import ApiClient, IdempotencyKey, Notification
from notification_project.notifications.reconciler import Reconciler
from shared_events.contracts.events import new_id, now
from shared_events.contracts.topics import NOTIFICATION_EVENTS
from shared_events.outbox.models import OutboxEvent
from shared_events.outbox.wakeup import WakeUp

pytestmark = pytest.mark.usefixtures("history", "db")

CLIENTS, ROWS = 4, 6_000


@pytest.fixture(scope="module")
def history(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Any]:
    """Finished rows of four clients, committed and with statistics (ANALYZE commits); the client of the first quarter."""
    if connection.vendor != "mysql":
        pytest.skip("the plans are MariaDB's")
    with django_db_blocker.unblock():
        yield make_history()
        tables: tuple[Any, ...] = (IdempotencyKey, OutboxEvent, Notification, ApiClient)
        for model in tables:
            model.objects.all().delete()


def make_history() -> Any:
    clients = [ApiClient.objects.create(name=f"history-{n}") for n in range(CLIENTS)]
    start = now() - timedelta(days=2)
    rows = [
        Notification(
            id=new_id(), client=clients[n % CLIENTS], recipient=f"r{n % 500}@example.com", subject="s", created_at=start,
            client_reference=f"order-{n}", status="SENT" if n % 50 else "PENDING", reconcile_at=None if n % 50 else start,
        )
        for n in range(ROWS)
    ]  # fmt: skip
    Notification.objects.bulk_create(rows, batch_size=2_000)
    OutboxEvent.objects.bulk_create(
        [
            OutboxEvent(
                id=new_id(), aggregate_id=row.pk, event_type="EMAIL_NOTIFICATION_CREATED", topic=NOTIFICATION_EVENTS, payload=b"{}",
                status="PUBLISHED", claims=1, available_at=start, created_at=start, published_at=start,
            )
            for row in rows
        ],
        batch_size=2_000,
    )  # fmt: skip
    IdempotencyKey.objects.bulk_create(
        [
            IdempotencyKey(key_hash=n.to_bytes(32, "big"), fingerprint=bytes(32), status_code=202, body=b"", created_at=start,
                expires_at=start)
            for n in range(2_000)
        ]
    )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE notifications, outbox_events, idempotency_keys")
    return clients[0]


def plans(statements: list[tuple[str, Any]], table: str) -> list[dict[str, Any]]:
    """EXPLAIN's rows of the statements that read or change `table`."""
    found = []
    with connection.cursor() as cursor:
        for sql, parameters in statements:
            if f"`{table}`" not in sql or sql.startswith("INSERT"):
                continue
            cursor.execute(f"EXPLAIN {sql}", parameters)
            names = [column[0] for column in cursor.description]
            found += [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    assert found, statements
    return found


def statements_of(step: Any) -> list[tuple[str, Any]]:
    gathered: list[tuple[str, Any]] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        gathered.append((sql, params))
        return execute(sql, params, many, context)

    with transaction.atomic(), connection.execute_wrapper(note):
        step()
    return gathered


def assert_walks(found: list[dict[str, Any]], *indexes: str, most_rows: int) -> None:
    for plan in found:
        assert plan["key"] in indexes, plan
        assert int(plan["rows"]) <= most_rows, plan
        assert "filesort" not in (plan["Extra"] or ""), plan
        assert "temporary" not in (plan["Extra"] or ""), plan


def listed(client: ApiClient, query: str) -> list[dict[str, Any]]:
    return plans(statements_of(lambda: listing.page(QueryDict(query), client)), "notifications")


def test_the_list_walks_client_and_id(history: ApiClient) -> None:
    assert_walks(listed(history, "limit=50"), "notification_list", most_rows=ROWS)


@pytest.mark.parametrize("rows_before", [0, 100, 700, 1_400])
def test_a_page_costs_the_same_wherever_it_is(history: ApiClient, rows_before: int) -> None:
    newest_first = Notification.objects.filter(client=history).order_by("-id").values_list("pk", flat=True)
    query = QueryDict(mutable=True)
    query["limit"] = "50"
    if rows_before:
        query["cursor"] = listing.cursor_of(newest_first[rows_before - 1])
    before = rows_read()
    found = listing.page(query, history)
    assert rows_read() - before <= 51 + 2
    assert [row.pk for row in found.results] == list(newest_first[rows_before : rows_before + 50])
    assert_walks(listed(history, query.urlencode()), "notification_list", most_rows=ROWS)


def rows_read() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read_%'")
        return sum(int(value) for _name, value in cursor.fetchall())


def test_the_list_of_one_recipient_walks_its_index(history: ApiClient) -> None:
    assert_walks(listed(history, "recipient=r4@example.com"), "notification_recipient", most_rows=50)


def test_a_client_reference_is_looked_up(history: ApiClient) -> None:
    found = plans(statements_of(lambda: listing.page(QueryDict("client_reference=order-4"), history)), "notifications")
    assert {plan["key"] for plan in found} == {"notification_reference"}
    assert int(found[0]["rows"]) == 1  # one row needs no order


def test_the_reconciler_walks_reconcile_at_and_finds_events_by_their_notification() -> None:
    reconciler = Reconciler(after_seconds=900, wake_up=WakeUp("redis://127.0.0.1:1/0", "test"))
    gathered = statements_of(reconciler.run_once)
    select = [entry for entry in gathered if "FOR UPDATE" in entry[0]]
    (plan,) = plans(select, "notifications")
    assert_walks([plan], "notification_reconcile", most_rows=ROWS // 2)
    events = plans(gathered, "outbox_events")
    assert_walks(events, "outbox_aggregate", "PRIMARY", most_rows=1_000)


def test_an_idempotency_key_is_looked_up_and_taken_over_by_its_primary_key(history: ApiClient) -> None:
    key = idempotency.Key((7).to_bytes(32, "big"))
    row = idempotency.new_row(key, bytes(32), status_code=202, location="", body=b"")

    def step() -> None:
        idempotency.stored_answer(key)
        assert idempotency.take_over(row)

    assert_walks(plans(statements_of(step), "idempotency_keys"), "PRIMARY", most_rows=1)


def test_cancel_finds_the_event_by_its_notification(history: ApiClient) -> None:
    notification = Notification.objects.filter(client=history).earliest("pk")
    OutboxEvent.objects.filter(aggregate_id=notification.pk).update(status="PENDING", claims=0)
    gathered = statements_of(lambda: cancel(notification))
    assert_walks(plans(gathered, "outbox_events"), "outbox_aggregate", most_rows=1)
    assert_walks(plans(gathered, "notifications"), "PRIMARY", most_rows=1)


def test_the_outboxs_age_walks_due_at() -> None:
    gathered = statements_of(lambda: OutboxEvent.objects.overdue(3600).exists())
    assert_walks(plans(gathered, "outbox_events"), "outbox_due", most_rows=1)
