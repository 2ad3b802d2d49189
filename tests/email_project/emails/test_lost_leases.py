"""Settling without the lease: nothing but a 250 is written, and a 250 always is."""

import logging

import pytest

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


def taken_over(**changes: object) -> Delivery:
    """A mail that this worker held, and of which another one made something since."""
    mail = claimed()[0]
    SentEmail.objects.filter(pk=mail.id).update(**{"lease_token": OTHER, **changes})
    return mail


@pytest.mark.parametrize("kind", [kind for kind in (*Kind, None) if kind is not Kind.SENT])
@pytest.mark.parametrize("status", Status)
def test_without_the_lease_nothing_changes(kind: Kind | None, status: str) -> None:
    mail = taken_over(status=status, status_version=3)
    before = SentEmail.objects.values().get()
    assert settle([result(mail, kind)], TOKEN, POLICY) == 1
    assert SentEmail.objects.values().get() == before
    assert (OutboxEvent.objects.count(), DeadLetter.objects.count()) == (0, 0)


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
