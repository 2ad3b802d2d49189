"""What was published and never heard of is published again, ever more rarely; what is not published yet is only put off."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connections, transaction
from django_redis import get_redis_connection

from notification_project.notifications.models import A_DAY_SECONDS, Notification
from notification_project.notifications.reconciler import Reconciler
from shared_events.contracts.events import now
from shared_events.outbox.models import OutboxEvent
from shared_events.outbox.wakeup import WakeUp
from tests.notification_project.factories import NotificationFactory, OutboxEventFactory, ago

pytestmark = pytest.mark.django_db

AFTER_SECONDS = 900


def reconcile(after_seconds: float = AFTER_SECONDS) -> int:
    return Reconciler(
        after_seconds=after_seconds, wake_up=WakeUp(django_settings.REDIS_URL, django_settings.PRODUCER)
    ).run_once()


def silent_since(seconds: float, *, event: str = "PUBLISHED", **fields: Any) -> Any:
    row = NotificationFactory.create(reconcile_at=ago(seconds=seconds), **fields)
    OutboxEventFactory.create(notification=row, status=event, crashes=3, lease_token=5)
    return row


@pytest.mark.fault(33)
def test_a_published_one_goes_back_to_pending_with_the_next_publication() -> None:
    row = silent_since(AFTER_SECONDS + 5)
    assert reconcile() == 1
    event: Any = OutboxEvent.objects.get()
    assert (event.status, event.publication, event.crashes, event.lease_token) == ("PENDING", 2, 0, 0)
    assert abs(event.due_at - now()) < timedelta(seconds=30)
    assert event.available_at == event.due_at
    row.refresh_from_db()
    assert (row.reconciled, row.status) == (1, "PENDING")
    assert reconcile() == 0


@pytest.mark.parametrize("event", ["PENDING", "FAILED", "DEAD_LETTERED", "CANCELLED"])
def test_one_that_is_not_published_is_only_put_off_which_counts_as_no_silence(event: str) -> None:
    row = silent_since(AFTER_SECONDS + 5, event=event)
    assert reconcile() == 1
    assert (OutboxEvent.objects.get().status, OutboxEvent.objects.get().publication) == (event, 1)
    row.refresh_from_db()
    assert abs(row.reconcile_at - now()) < timedelta(seconds=30)
    assert row.reconciled == 0
    assert reconcile() == 0


def test_one_that_is_not_published_does_not_keep_a_published_one_waiting() -> None:
    silent_since(AFTER_SECONDS + 50, event="PENDING")
    published = silent_since(AFTER_SECONDS + 5)
    assert reconcile() == 2
    published.refresh_from_db()
    assert published.reconciled == 1
    assert OutboxEvent.objects.get(aggregate_id=published.pk).publication == 2


@pytest.mark.parametrize("reconcile_at", [None, timedelta(seconds=AFTER_SECONDS - 30), timedelta(days=-1)])
def test_one_of_which_word_is_not_due_is_left(reconcile_at: timedelta | None) -> None:
    row = NotificationFactory.create(reconcile_at=None if reconcile_at is None else now() - reconcile_at)
    OutboxEventFactory.create(notification=row)
    assert reconcile() == 0
    assert OutboxEvent.objects.get().publication == 1


def test_a_changed_setting_holds_for_stored_rows_at_once() -> None:
    silent_since(60)
    assert reconcile(after_seconds=120) == 0
    assert reconcile(after_seconds=30) == 1


@pytest.mark.parametrize(
    ("reconciled", "wait_seconds"),
    [
        (0, 1_800),
        (1, 3_600),
        (2, 7_200),
        (5, 57_600),
        (6, A_DAY_SECONDS),
        (7, A_DAY_SECONDS),
        (19, A_DAY_SECONDS),
        (500, A_DAY_SECONDS),
    ],
)
def test_the_wait_doubles_up_to_a_day(reconciled: int, wait_seconds: int) -> None:
    row = silent_since(10 * A_DAY_SECONDS, reconciled=reconciled)
    reconcile()
    row.refresh_from_db()
    due_at = row.reconcile_at + timedelta(seconds=AFTER_SECONDS)  # as the reconciler reads it
    assert abs(due_at - now() - timedelta(seconds=wait_seconds)) < timedelta(seconds=30)
    assert row.reconciled == reconciled + 1


def test_a_cycle_takes_at_most_five_hundred_the_longest_silent_first() -> None:
    rows = [
        NotificationFactory.build(client_id=1, client=None, reconcile_at=ago(seconds=AFTER_SECONDS + 60 + n))
        for n in range(505)
    ]
    Notification.objects.bulk_create(rows)
    OutboxEvent.objects.bulk_create([OutboxEventFactory.build(notification=row) for row in rows])
    assert reconcile() == 500
    left = set(Notification.objects.filter(reconciled=0).values_list("pk", flat=True))
    assert left == {row.pk for row in rows[:5]}
    assert reconcile() == 5
    assert reconcile() == 0


@pytest.mark.parametrize("many", [1, 20])
def test_it_costs_five_statements_however_many(
    many: int, count_statements: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    for _ in range(many):
        silent_since(AFTER_SECONDS + 5)
        silent_since(AFTER_SECONDS + 5, event="PENDING")
    with count_statements() as statements:
        assert reconcile() == 2 * many
    assert len(statements) <= 5, statements


def test_the_relay_is_woken_only_where_something_is_published_again() -> None:
    client: Any = get_redis_connection("default")
    bell = f"notifyx:wake:{django_settings.PRODUCER}"
    silent_since(AFTER_SECONDS + 5, event="PENDING")
    reconcile()
    assert client.llen(bell) == 0
    silent_since(AFTER_SECONDS + 5)
    reconcile()
    assert client.llen(bell) == 1


def in_a_thread(many: int) -> list[int]:
    """What `many` reconcilers that begin together return, each with a connection of its own."""
    barrier = Barrier(many)

    def run(_n: int) -> int:
        barrier.wait(30)
        try:
            return reconcile()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(many) as pool:
        return list(pool.map(run, range(many)))


@pytest.mark.django_db(transaction=True)
def test_two_reconcilers_share_the_work(mariadb: None) -> None:
    for _ in range(30):
        silent_since(AFTER_SECONDS + 5)
    assert sum(in_a_thread(2)) == 30
    assert set(OutboxEvent.objects.values_list("publication", flat=True)) == {2}


@pytest.mark.django_db(transaction=True)
def test_rows_that_another_one_holds_are_passed_over(mariadb: None) -> None:
    held, free = silent_since(AFTER_SECONDS + 50), silent_since(AFTER_SECONDS + 5)
    with transaction.atomic():
        Notification.objects.select_for_update().get(pk=held.pk)
        assert in_a_thread(1) == [1]
    assert OutboxEvent.objects.get(aggregate_id=free.pk).publication == 2
    assert OutboxEvent.objects.get(aggregate_id=held.pk).publication == 1
