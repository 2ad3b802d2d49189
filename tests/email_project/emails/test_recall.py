"""What the notification service still knows of mails that a restored database has forgotten."""

from typing import Any
from uuid import UUID

import pytest

from email_project.emails.intake import Intake, NoPool
from email_project.emails.models import SentEmail
from shared_events.contracts.events import EmailSent, EmailStatusKnown, EmailUncertain, encode, new_id, now
from shared_events.outbox.models import OutboxEvent
from tests.email_project.factories import ago, attempts, record, reports, store
from tests.email_project.senders import state
from tests.shared_events.probes import counted_sql

pytestmark = [pytest.mark.django_db, pytest.mark.fault(61)]
Status = SentEmail.Status
SENT_AT = ago(minutes=30)


def recall(pk: UUID, status: str, **fields: Any) -> None:
    event = EmailStatusKnown(
        event_id=new_id(), notification_id=pk, occurred_at=now(), producer="notification-service", status=status, **fields  # type: ignore[arg-type]
    )  # fmt: skip
    Intake(NoPool(), ring=lambda: None).handle([record(encode(event))])


@pytest.mark.parametrize("status", [Status.UNCERTAIN, Status.FAILED])
def test_that_a_mail_was_sent_is_a_fact(status: str) -> None:
    pk = store(status=status, status_version=5, generation=1, uncertain_since=now(), due_at=None)[0]
    recall(pk, "SENT", sent_at=SENT_AT, generation=3, possible_duplicates=2)
    mail = state(pk)
    assert (mail.status, mail.sent_at, mail.status_version) == ("SENT", SENT_AT, 6)
    assert (mail.generation, mail.possible_duplicates) == (3, 2)
    report = reports()[0]
    assert isinstance(report, EmailSent)
    assert (report.sent_at, report.status_version, report.possible_duplicates) == (SENT_AT, 6, 2)


def test_one_that_failed_and_was_replayed_since_is_uncertain() -> None:
    pk = store(status=Status.FAILED, status_version=5, failure_class="policy", attempts=attempts(1), due_at=None)[0]
    recall(pk, "PENDING", generation=1)
    mail = state(pk)
    assert (mail.status, mail.uncertain_phase, mail.generation) == ("UNCERTAIN", "restored", 2)
    assert isinstance(reports()[0], EmailUncertain)
    assert reports()[0].generation == 2


@pytest.mark.parametrize("status", [Status.SENT, Status.UNCERTAIN, Status.FAILED])
def test_copies_that_were_announced_stay_announced(status: str) -> None:
    pk = store(status=status, status_version=5, sent_at=SENT_AT, uncertain_since=now(), due_at=None)[0]
    recall(pk, str(status), possible_duplicates=3)
    assert (state(pk).status, state(pk).possible_duplicates, reports()[0].possible_duplicates) == (status, 3, 3)


@pytest.mark.parametrize("status", Status)
def test_what_is_no_news_changes_nothing_and_is_not_answered(status: str) -> None:
    pk = store(status=status, status_version=5, generation=2, possible_duplicates=2, sent_at=SENT_AT)[0]
    mail = SentEmail.objects.values().get()
    recall(pk, "FAILED", generation=2, possible_duplicates=2)
    assert (SentEmail.objects.values().get(), OutboxEvent.objects.count()) == (mail, 0)


@pytest.mark.parametrize("status", SentEmail.OPEN)
def test_a_mail_in_a_workers_hands_is_left_to_it(status: str) -> None:
    pk = store(status=status, status_version=5, lease_token=7)[0]
    mail = SentEmail.objects.values().get()
    recall(pk, "SENT", sent_at=SENT_AT, generation=9, possible_duplicates=9)
    assert (state(pk).lease_token, SentEmail.objects.values().get()) == (7, mail)


def test_no_body_is_read_to_recall_a_mail() -> None:
    pk = store(status=Status.UNCERTAIN, status_version=5, uncertain_since=now(), due_at=None)[0]
    with counted_sql() as sql:
        recall(pk, "SENT", sent_at=SENT_AT)
    assert state(pk).status == "SENT"
    assert not [read for read in sql.of("SELECT") if "`html`" in read or '"html"' in read]


def test_a_mail_that_is_not_known_at_all_is_not_made() -> None:
    recall(new_id(), "SENT", sent_at=SENT_AT)
    assert (SentEmail.objects.count(), OutboxEvent.objects.count()) == (0, 0)


def test_the_same_word_twice_is_answered_once() -> None:
    pk = store(status=Status.UNCERTAIN, status_version=5, uncertain_since=now(), due_at=None)[0]
    recall(pk, "SENT", sent_at=SENT_AT)
    recall(pk, "SENT", sent_at=SENT_AT)
    assert (state(pk).status_version, len(reports())) == (6, 1)
