"""What the e-mail service reports is merged: SENT always wins, otherwise the higher version, in whatever order it arrives."""

from datetime import datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from notification_project.notifications import status
from notification_project.notifications.models import Notification
from shared_events.contracts.events import (
    AnyStatus,
    Attempt,
    EmailDeferred,
    EmailFailed,
    EmailReplayed,
    EmailSent,
    EmailUncertain,
    Failure,
    Uncertain,
    encode,
    new_id,
    now,
)
from shared_events.dead_letters.models import DeadLetter
from tests.notification_project.factories import NotificationFactory, ago, ahead, record

pytestmark = pytest.mark.django_db

FAILURE = Failure(failure_class="recipient", code="5.1.1", detail="no such user")
UNCERTAIN = Uncertain(phase="final dot", since=ago(minutes=1), host="mx", message_id="<a@b>", next="sent again")
FIELDS: dict[type[Any], dict[str, Any]] = {
    EmailSent: {"sent_at": ago(seconds=5)},
    EmailFailed: {"failure": FAILURE},
    EmailDeferred: {"next_attempt_at": ahead(minutes=5)},
    EmailUncertain: {"uncertain": UNCERTAIN},
    EmailReplayed: {"generation": 1},
}


def event(kind: type[Any], row: Notification, version: int, **fields: Any) -> AnyStatus:
    made: AnyStatus = kind(
        event_id=new_id(), notification_id=row.pk, occurred_at=now(), producer="email-service", status_version=version,
        **{**FIELDS[kind], **fields},
    )  # fmt: skip
    return made


def merge(*events: AnyStatus) -> None:
    """In one batch, as records of the status topic."""
    status.handle([record(encode(made), offset=n) for n, made in enumerate(events)])


def merge_one_by_one(*events: AnyStatus) -> None:
    for made in events:
        merge(made)


def fresh(row: Any) -> Any:
    row.refresh_from_db()
    return row


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (EmailSent, "SENT"),
        (EmailFailed, "FAILED"),
        (EmailDeferred, "PENDING"),
        (EmailUncertain, "UNCERTAIN"),
        (EmailReplayed, "PENDING"),
    ],
)
def test_each_report_sets_its_state_and_version(kind: type[Any], expected: str) -> None:
    row = NotificationFactory.create(status="UNCERTAIN" if kind is EmailReplayed else "PENDING")
    merge(event(kind, row, 1, possible_duplicates=2))
    assert (fresh(row).status, row.status_version, row.possible_duplicates) == (expected, 1, 2)


def test_what_a_report_carries_is_stored() -> None:
    rows = NotificationFactory.create_batch(3)
    attempt = Attempt(
        n=1, at=ago(seconds=9), phase="rcpt", outcome="failed", code=550, enhanced_code="5.1.1", reply="no", host="mx"
    )
    sent = event(EmailSent, rows[0], 1, attempts=[attempt])
    merge(sent, event(EmailFailed, rows[1], 1), event(EmailUncertain, rows[2], 1))
    assert fresh(rows[0]).sent_at == sent.sent_at  # type: ignore[union-attr]
    assert rows[0].attempts[0]["reply"] == "no"
    assert datetime.fromisoformat(rows[0].attempts[0]["at"]) == attempt.at
    assert fresh(rows[1]).failure_class == "recipient"
    assert (rows[1].failure_code, rows[1].failure_detail) == ("5.1.1", "no such user")
    assert fresh(rows[2]).uncertain["message_id"] == "<a@b>"


@pytest.mark.fault(21, 51)
@pytest.mark.parametrize("deliver", [merge, merge_one_by_one])
@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        (((EmailFailed, 1), (EmailDeferred, 2)), ("PENDING", 2)),
        (((EmailDeferred, 1), (EmailFailed, 2)), ("FAILED", 2)),
        (((EmailUncertain, 1), (EmailDeferred, 2), (EmailFailed, 3)), ("FAILED", 3)),
        (((EmailSent, 1), (EmailFailed, 2)), ("SENT", None)),
        (((EmailSent, 1), (EmailReplayed, 2), (EmailUncertain, 3)), ("SENT", None)),
        (((EmailFailed, 1), (EmailReplayed, 2), (EmailSent, 3)), ("SENT", 3)),
    ],
)
def test_any_order_and_any_grouping_ends_in_the_same_state(deliver: Any, versions: Any, expected: Any) -> None:
    for order in permutations(versions):
        row = NotificationFactory.create()
        deliver(*[event(kind, row, version) for kind, version in order])
        assert fresh(row).status == expected[0], order
        if expected[1] is not None:
            assert row.status_version == expected[1], order


@pytest.mark.fault(21, 51)
def test_sent_wins_over_a_higher_version_and_keeps_that_version() -> None:
    row = NotificationFactory.create(status="FAILED", status_version=5)
    merge(event(EmailSent, row, 2))
    assert (fresh(row).status, row.status_version) == ("SENT", 5)
    merge(event(EmailFailed, row, 9))
    assert fresh(row).status == "SENT"


@pytest.mark.fault(51, 53)
def test_an_equal_version_changes_nothing() -> None:
    row = NotificationFactory.create(status="FAILED", status_version=2, failure_code="5.1.1", possible_duplicates=1)
    merge(event(EmailDeferred, row, 2, possible_duplicates=7), event(EmailFailed, row, 1))
    assert (fresh(row).status, row.possible_duplicates, row.next_attempt_at) == ("FAILED", 1, None)


def test_a_newer_sent_updates_the_duplicates_of_a_sent_one_and_an_older_does_not() -> None:
    row = NotificationFactory.create(status="SENT", status_version=2, sent_at=ago(minutes=1))
    merge(event(EmailSent, row, 1, possible_duplicates=9))
    assert fresh(row).possible_duplicates == 0
    merge(event(EmailSent, row, 3, possible_duplicates=1))
    assert (fresh(row).possible_duplicates, row.status_version) == (1, 3)


@pytest.mark.fault(27, 53)
def test_a_redelivered_batch_changes_nothing() -> None:
    rows = NotificationFactory.create_batch(3)
    events = [event(EmailSent, rows[0], 1), event(EmailFailed, rows[1], 1), event(EmailDeferred, rows[2], 1)]
    merge(*events)
    before = list(Notification.objects.order_by("id").values())
    merge(*events, *events)
    assert list(Notification.objects.order_by("id").values()) == before
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("kind", [EmailSent, EmailFailed])
def test_a_final_state_asks_for_no_more_word(kind: type[Any]) -> None:
    row = NotificationFactory.create(next_attempt_at=ahead(minutes=5))
    merge(event(kind, row, 1))
    assert (fresh(row).reconcile_at, row.next_attempt_at) == (None, None)


def test_a_deferred_one_is_asked_after_from_its_next_attempt_on() -> None:
    row, later = NotificationFactory.create(), ahead(hours=3)
    merge(event(EmailDeferred, row, 1, next_attempt_at=later))
    assert fresh(row).reconcile_at == row.next_attempt_at == later


@pytest.mark.parametrize("kind", [EmailReplayed, EmailDeferred])
def test_one_without_a_next_attempt_is_asked_after_from_now_on(kind: type[Any]) -> None:
    row = NotificationFactory.create(status="FAILED", reconcile_at=None)
    merge(event(kind, row, 1, **({"next_attempt_at": None} if kind is EmailDeferred else {})))
    assert fresh(row).next_attempt_at is None
    assert abs(row.reconcile_at - now()) < timedelta(seconds=30)


def test_an_uncertain_one_is_asked_after_in_a_day() -> None:
    row = NotificationFactory.create()
    merge(event(EmailUncertain, row, 1))
    assert abs(fresh(row).reconcile_at - ahead(days=1)) < timedelta(seconds=30)


def test_words_that_are_too_long_for_their_columns_are_cut() -> None:
    row = NotificationFactory.create()
    failure = Failure(failure_class="c" * 100, code="5" * 100, detail="ä" * 2_000)
    merge(event(EmailFailed, row, 1, failure=failure))
    assert (len(fresh(row).failure_class), len(row.failure_code), len(row.failure_detail)) == (16, 32, 500)


def test_a_batch_keeps_what_differs_from_row_to_row() -> None:
    rows = NotificationFactory.create_batch(40)
    merge(*[event(EmailSent, row, 1, sent_at=ago(minutes=n), possible_duplicates=n) for n, row in enumerate(rows)])
    for n, row in enumerate(rows):
        assert (fresh(row).status, row.possible_duplicates) == ("SENT", n)
        assert timedelta(minutes=n) <= now() - row.sent_at < timedelta(minutes=n, seconds=30)


def test_one_that_is_replayed_has_no_end_any_more() -> None:
    row = NotificationFactory.create()
    failed = event(EmailFailed, row, 1)
    merge(failed)
    assert fresh(row).ended_at == failed.occurred_at
    merge(event(EmailReplayed, row, 2))
    assert fresh(row).ended_at is None
