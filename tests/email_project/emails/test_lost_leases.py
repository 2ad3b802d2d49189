"""Settling without the lease: nothing but a 250 is written, and a 250 always is."""

import logging

import msgspec
import pytest
from django.db.models.functions import Now

from email_project.emails.delivery import Delivery
from email_project.emails.models import SentEmail
from email_project.emails.outcomes import Kind
from email_project.emails.settlement import settle
from shared_events.dead_letters.models import DeadLetter
from shared_events.outbox.models import OutboxEvent
from tests.email_project.factories import POLICY, TOKEN, ago, attempts, claimed, reports, result
from tests.email_project.senders import state

pytestmark = pytest.mark.django_db
Status = SentEmail.Status
OTHER = 99
BEING_SENT = {"status": Status.RETRY_PENDING, "data_started_at": Now()}


def taken_over(**changes: object) -> Delivery:
    """A mail that this worker held, and of which another one made something since."""
    mail = claimed()[0]
    SentEmail.objects.filter(pk=mail.id).update(**{"lease_token": OTHER, **changes})
    return mail


@pytest.mark.fault(47)
@pytest.mark.parametrize("kind", [kind for kind in (*Kind, None) if kind is not Kind.SENT])
@pytest.mark.parametrize("status", Status)
def test_without_the_lease_nothing_changes(kind: Kind | None, status: str) -> None:
    mail = taken_over(status=status, status_version=3)
    before = SentEmail.objects.values().get()
    assert settle([result(mail, kind)], TOKEN, POLICY) == 1
    assert SentEmail.objects.values().get() == before
    assert (OutboxEvent.objects.count(), DeadLetter.objects.count()) == (0, 0)


@pytest.mark.fault(39, 47)
@pytest.mark.parametrize("status", [Status.PROCESSING, Status.RETRY_PENDING, Status.FAILED, Status.UNCERTAIN])
def test_a_late_250_is_written_over_whatever_another_owner_made_of_it(status: str) -> None:
    mail = taken_over(status=status, status_version=3, attempts=attempts(1), possible_duplicates=1, retry_count=1)
    assert settle([result(mail, Kind.SENT)], TOKEN, POLICY) == 1
    row = state(mail.id)
    assert (row.status, row.status_version, row.due_at, row.lease_token) == (Status.SENT, 4, None, 0)
    assert (row.data_started_at, row.crashes, row.possible_duplicates) == (None, 0, 1)
    assert [attempt["outcome"] for attempt in row.attempts] == ["retry", "sent"]
    assert [attempt["n"] for attempt in row.attempts] == [1, 2]
    report = reports()[0]
    assert (type(report).__name__, report.status_version, report.sent_at) == ("EmailSent", 4, row.sent_at)


@pytest.mark.fault(47)
def test_a_second_250_counts_as_a_copy_and_the_first_time_stays() -> None:
    first_at = ago(hours=1)
    mail = taken_over(
        status=Status.SENT, status_version=1, sent_at=first_at, attempts=attempts(1, outcome="sent"), due_at=None
    )
    settle([result(mail, Kind.SENT)], TOKEN, POLICY)
    row = state(mail.id)
    assert (row.status, row.status_version, row.possible_duplicates, row.sent_at) == (Status.SENT, 2, 1, first_at)
    assert (reports()[0].possible_duplicates, reports()[0].sent_at) == (1, first_at)


def test_a_late_250_takes_the_row_from_its_owner_whose_own_250_is_counted() -> None:
    mail = claimed()[0]
    SentEmail.objects.update(due_at=ago(seconds=1))
    row = SentEmail.claim(batch=1, lease_seconds=60, token=OTHER)[0]
    other = Delivery.of_row(row, leased_until=1e12)
    assert settle([result(mail, Kind.SENT)], TOKEN, POLICY) == 1
    assert settle([result(other, Kind.RETRY)], OTHER, POLICY) == 1
    assert state(mail.id).status == Status.SENT
    assert settle([result(other, Kind.SENT)], OTHER, POLICY) == 1
    assert (state(mail.id).status, state(mail.id).possible_duplicates) == (Status.SENT, 1)
    assert [report.status_version for report in reports()] == [1, 2]


def test_a_mail_that_was_pruned_meanwhile_is_not_made_anew() -> None:
    mail = taken_over()
    SentEmail.objects.all().delete()
    assert settle([result(mail, Kind.SENT)], TOKEN, POLICY) == 1
    assert (SentEmail.objects.count(), OutboxEvent.objects.count()) == (0, 0)


def test_a_lost_lease_does_not_keep_the_others_from_being_settled(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    lost, kept, failed = claimed(3)
    SentEmail.objects.filter(pk=lost.id).update(lease_token=OTHER)
    results = [result(lost, Kind.RETRY), result(kept, Kind.SENT), result(failed, Kind.FAILED)]
    assert settle(results, TOKEN, POLICY) == 1
    assert [state(mail.id).status for mail in (lost, kept, failed)] == ["PROCESSING", "SENT", "FAILED"]
    assert (len(reports()), DeadLetter.objects.count()) == (2, 1)
    assert [record.msg["notification_id"] for record in caplog.records] == [str(lost.id)]  # type: ignore[index]


def found_unanswered(**changes: object) -> Delivery:
    """A mail that this worker is sending, which another owner found without an outcome and wrote down as uncertain."""
    found = attempts(1, outcome="uncertain", code=None)
    return taken_over(**{"attempts": found, "status_version": 1, "data_started_at": None, **changes})


@pytest.mark.fault(47)
@pytest.mark.parametrize(
    ("others", "announced", "expected"),
    [
        ({"status": Status.UNCERTAIN}, 0, 0),  # held: this is the only copy
        ({"status": Status.FAILED}, 1, 1),  # sent again and refused: what was announced is not taken back
        ({"status": Status.FAILED}, 0, 0),  # an operator said "not delivered"
        ({"status": Status.RETRY_PENDING, "lease_token": 0}, 1, 1),  # to be sent again, which is counted already
        (BEING_SENT, 1, 1),  # which is counted already
        (BEING_SENT, 0, 1),  # replayed after an operator's "not delivered", and not counted yet
    ],
)
def test_a_late_250_announces_each_copy_there_may_be(others: dict[str, object], announced: int, expected: int) -> None:
    mail = found_unanswered(possible_duplicates=announced, **others)
    assert settle([result(mail, Kind.SENT)], TOKEN, POLICY) == 1
    row = state(mail.id)
    assert (row.status, row.possible_duplicates, reports()[0].possible_duplicates) == (Status.SENT, expected, expected)
    assert [(attempt["n"], attempt["outcome"]) for attempt in row.attempts] == [(1, "sent")]


@pytest.mark.fault(47)
@pytest.mark.parametrize("announced", [0, 1])
def test_a_late_250_beside_another_owners_announces_one_copy_however_that_one_came_to_send(announced: int) -> None:
    known = [*attempts(1, outcome="uncertain", code=None), {**attempts(1, outcome="sent", code=250)[0], "n": 2}]
    mail = taken_over(
        status=Status.SENT, attempts=known, possible_duplicates=announced, data_started_at=None, sent_at=ago(hours=1)
    )
    settle([result(mail, Kind.SENT)], TOKEN, POLICY)
    assert (state(mail.id).possible_duplicates, reports()[0].possible_duplicates) == (1, 1)
    assert [attempt["outcome"] for attempt in state(mail.id).attempts] == ["sent", "sent"]


@pytest.mark.fault(47)
def test_an_owner_that_was_robbed_amid_data_need_not_say_more_for_its_copy_to_be_announced() -> None:
    mail = claimed()[0]
    SentEmail.objects.update(
        status=Status.RETRY_PENDING, due_at=ago(seconds=1), lease_token=0, crashes=0, data_started_at=None
    )
    other = Delivery.of_row(SentEmail.claim(batch=1, lease_seconds=60, token=OTHER)[0], leased_until=1e12)
    settle([result(mail, Kind.SENT)], TOKEN, POLICY)
    assert settle([result(other, Kind.UNCERTAIN)], OTHER, POLICY) == 1
    assert (state(mail.id).status, state(mail.id).possible_duplicates) == (Status.SENT, 1)


@pytest.mark.fault(47)
def test_of_three_attempts_two_late_250s_make_two_copies_and_no_more() -> None:
    known = [{**attempts(1, outcome="uncertain", code=None)[0], "n": n} for n in (1, 2)]
    mail = taken_over(status=Status.RETRY_PENDING, attempts=known, possible_duplicates=2, data_started_at=Now())
    second = msgspec.structs.replace(result(mail, Kind.SENT).attempt(), n=2)
    settle([result(mail, Kind.SENT)], TOKEN, POLICY)
    assert state(mail.id).possible_duplicates == 2
    late = claimed()[0]
    late.id, late.attempts = mail.id, [msgspec.structs.replace(second, n=1)]
    settle([result(late, Kind.SENT)], TOKEN, POLICY)
    assert (state(mail.id).possible_duplicates, [a["outcome"] for a in state(mail.id).attempts]) == (
        2,
        ["sent", "sent"],
    )
