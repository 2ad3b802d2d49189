"""The claim: disjoint, in order, by index, and fenced."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from shared_events.outbox.claim import claim_due, in_seconds, new_lease_token
from shared_events.outbox.models import OutboxEvent
from tests.shared_events.probes import counted_sql

from .factories import ago, only, store

pytestmark = pytest.mark.django_db


def claim(batch: int = 500, *, token: int = 7, lease_seconds: float = 60) -> list[UUID]:
    rows = claim_due(
        OutboxEvent, ("id",), batch=batch, lease_seconds=lease_seconds, token=token, claims=F("claims") + 1
    )
    return [row[0] for row in rows]


def test_what_is_due_longest_comes_first() -> None:
    ids = store(5)
    assert claim(3) == ids[:3]
    assert claim(3) == ids[3:]
    assert claim(3) == []


def test_rows_of_one_time_come_in_the_order_of_their_ids() -> None:
    ids = store(5, due_at=ago(60))
    assert claim() == sorted(ids)


def test_what_is_not_due_yet_or_has_nothing_left_to_do_is_left() -> None:
    store(due_at=in_seconds(3600), available_at=ago(60))
    store(due_at=None, status=OutboxEvent.Status.PUBLISHED)
    assert claim() == []


def test_a_claim_is_a_lease_with_a_token_and_counts() -> None:
    store(crashes=3, claims=8)
    claim(token=42)
    event = only()
    assert (event.lease_token, event.crashes, event.claims) == (42, 4, 9)
    assert OutboxEvent.objects.filter(due_at__gt=in_seconds(50), due_at__lte=in_seconds(60)).exists()


@pytest.mark.fault(13)
def test_a_lease_that_ran_out_is_claimed_by_the_next() -> None:
    ids = store()
    assert claim(token=1, lease_seconds=-1) == ids
    assert claim(token=2) == ids
    assert (only().lease_token, only().crashes) == (2, 2)


@pytest.mark.fault(20)
def test_the_former_owner_changes_nothing() -> None:
    ids = store()
    claim(token=1, lease_seconds=-1)
    claim(token=2)
    assert OutboxEvent.objects.held_by(1, ids).mark_published() == 0
    assert OutboxEvent.objects.held_by(1, ids).release() == 0
    assert OutboxEvent.objects.held_by(2, ids).mark_published() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("rows", [1, 400])
def test_a_claim_of_any_size_is_two_statements_and_a_commit(rows: int) -> None:
    store(rows)
    with counted_sql() as sql:
        claim()
    assert (len(sql.statements), sql.commits) == (2, 1)


def test_a_claim_that_finds_nothing_is_one_statement() -> None:
    with counted_sql() as sql:
        claim()
    assert len(sql.statements) == 1


@pytest.mark.fault(23)
@pytest.mark.django_db(transaction=True)
def test_two_open_claims_share_no_row_and_wait_for_nothing(mariadb: None) -> None:
    store(100)
    both_hold = threading.Barrier(2, timeout=30)

    def claim_and_stay_open() -> set[UUID]:
        try:
            with transaction.atomic():
                ids = set(claim(30, token=new_lease_token()))
                both_hold.wait()
            return ids
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        one, other = (future.result() for future in [pool.submit(claim_and_stay_open) for _ in range(2)])
    assert (len(one), len(other)) == (30, 30)
    assert not one & other


@pytest.mark.fault(23)
@pytest.mark.django_db(transaction=True)
def test_the_claim_walks_its_index_without_sorting(mariadb: None) -> None:
    store(300, due_at=None, status=OutboxEvent.Status.PUBLISHED)
    store(300)
    store(300, due_at=in_seconds(3600), available_at=ago(1))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE outbox_events")
        cursor.fetchall()
    with transaction.atomic(), counted_sql() as sql:
        claim(100)
    select = sql.of("SELECT")[0]
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + select.replace("SKIP LOCKED", ""))
        plan = dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))
    assert (plan["key"], plan["type"]) == ("outbox_due", "range")
    assert "filesort" not in plan["Extra"]
    assert "temporary" not in plan["Extra"]


@pytest.mark.fault(22, 23)
def test_the_claims_query_names_no_other_column() -> None:
    store()
    with counted_sql() as sql:
        claim(1)
    where = sql.of("SELECT")[0].partition("WHERE")[2].replace("`", "").replace('"', "")
    assert where.count("outbox_events.") == 3
    assert "ORDER BY outbox_events.due_at ASC, outbox_events.id ASC LIMIT 1" in where


def test_tokens_are_nobodys_own() -> None:
    tokens = {new_lease_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert 0 < min(tokens) <= max(tokens) < 2**63


def test_times_are_the_databases() -> None:
    store(due_at=Now(), available_at=Now())
    assert len(claim()) == 1
