"""An operator's word on an uncertain mail: once a generation, reported, and never lost."""

from typing import Any
from uuid import UUID

import pytest

from email_project.emails.intake import Intake, NoPool
from email_project.emails.models import SentEmail
from shared_events.contracts.events import EmailResolutionRequested, encode, new_id, now
from shared_events.dead_letters.models import DeadLetter
from shared_events.kafka.consumer import Record
from tests.email_project.factories import ago, created, record, reports, store
from tests.shared_events.probes import counted_sql

pytestmark = pytest.mark.django_db

Status = SentEmail.Status


def uncertain(**fields: Any) -> UUID:
    held: dict[str, Any] = {
        "status": Status.UNCERTAIN,
        "status_version": 1,
        "due_at": None,
        "uncertain_phase": "reply",
        "uncertain_since": ago(hours=1),
    }
    return store(**held, **fields)[0]


def request(mail: UUID, resolution: Any, generation: int = 0) -> Record:
    event = EmailResolutionRequested(
        event_id=new_id(),
        notification_id=mail,
        occurred_at=now(),
        producer="notification-service",
        resolution=resolution,
        reason="the recipient said so",
        operator="ops",
        generation=generation,
    )
    return record(encode(event))


def handle(*records: Record) -> None:
    Intake(NoPool(), ring=lambda: None).handle(records)


@pytest.mark.parametrize(
    ("resolution", "status", "event"),
    [
        ("delivered", Status.SENT, "EmailSent"),
        ("not_delivered", Status.FAILED, "EmailFailed"),
        ("resend", Status.RETRY_PENDING, "EmailReplayed"),
    ],
)
def test_each_resolution_has_its_state_and_its_report(resolution: str, status: str, event: str) -> None:
    mail = uncertain()
    handle(request(mail, resolution))
    row = SentEmail.objects.get(pk=mail)
    assert (row.status, row.generation, row.status_version) == (status, 1, 2)
    assert [(type(report).__name__, report.status_version, report.generation) for report in reports()] == [
        (event, 2, 1)
    ]


def test_a_mail_that_is_to_be_sent_again_is_due_and_counts_a_possible_duplicate() -> None:
    mail = uncertain(possible_duplicates=2)
    handle(request(mail, "resend"))
    row = SentEmail.objects.get(pk=mail)
    assert row.due_at is not None
    assert row.possible_duplicates == 3


def test_a_delivered_mail_was_sent_when_it_became_uncertain() -> None:
    mail = uncertain()
    handle(request(mail, "delivered"))
    row = SentEmail.objects.get(pk=mail)
    assert row.sent_at == row.uncertain_since


def test_a_mail_that_was_not_delivered_can_be_replayed_later() -> None:
    mail = uncertain()
    handle(request(mail, "not_delivered"))
    letter = DeadLetter.objects.get(notification_id=mail)
    assert (letter.letter_class, letter.generation, letter.cause) == ("operator", 1, "the recipient said so")


@pytest.mark.parametrize(("resolution", "bodies"), [("delivered", 0), ("resend", 0), ("not_delivered", 1)])
def test_a_body_is_read_only_for_a_dead_letter(resolution: str, bodies: int) -> None:
    mail = uncertain(html="<p>Welcome</p>")
    with counted_sql() as sql:
        handle(request(mail, resolution))
    assert len([read for read in sql.of("SELECT") if "`html`" in read or '"html"' in read]) == bodies


@pytest.mark.fault(57)
def test_a_second_resolution_of_one_generation_changes_nothing_and_is_answered() -> None:
    mail = uncertain()
    handle(request(mail, "delivered"))
    handle(request(mail, "resend"))
    assert SentEmail.objects.get(pk=mail).status == Status.SENT
    assert [type(report).__name__ for report in reports()] == ["EmailSent", "EmailSent"]


@pytest.mark.fault(57)
def test_of_two_resolutions_in_one_batch_the_first_holds() -> None:
    mail = uncertain()
    handle(request(mail, "not_delivered"), request(mail, "delivered"))
    assert SentEmail.objects.get(pk=mail).status == Status.FAILED


def test_a_resolution_of_an_older_generation_changes_nothing() -> None:
    mail = uncertain(generation=3)
    handle(request(mail, "resend", generation=2))
    assert SentEmail.objects.get(pk=mail).status == Status.UNCERTAIN


def test_a_resolution_of_an_unknown_mail_is_no_error() -> None:
    handle(request(new_id(), "delivered"))
    assert reports() == []


def test_a_notification_too_old_to_be_known_is_held_and_can_be_resolved(settings: Any) -> None:
    settings.SENT_EMAILS_RETENTION_DAYS = 20
    event = created(created_at=ago(days=11))
    handle(record(event))
    assert SentEmail.objects.get(pk=event.notification_id).status == Status.UNCERTAIN
    handle(request(event.notification_id, "resend"))
    assert SentEmail.objects.get(pk=event.notification_id).status == Status.RETRY_PENDING
