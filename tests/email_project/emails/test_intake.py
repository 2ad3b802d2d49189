"""Intake: each notification once, whatever Kafka hands over."""

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings

from email_project.emails.intake import Intake
from email_project.emails.models import SentEmail
from shared_events.contracts.events import EmailSent, encode, new_id, now
from shared_events.dead_letters.models import DeadLetter
from shared_events.outbox.claim import in_seconds
from shared_events.outbox.models import OutboxEvent
from tests.email_project.factories import ago, ahead, created, dead_letter_events, record, reports, store
from tests.email_project.senders import Sending
from tests.shared_events.probes import counted_sql

pytestmark = pytest.mark.django_db
Status = SentEmail.Status


@pytest.fixture
def sending() -> Sending:
    return Sending()


@pytest.fixture
def intake(sending: Sending) -> Intake:
    made = Intake(sending.sender, ring=sending.ring)
    assert made.restore is None  # read once, before anything is counted
    return made


def test_a_notification_becomes_a_row(intake: Intake) -> None:
    event = created(html="<p>Hi</p>", reply_to="help@example.com", send_before=ahead(hours=1))
    intake.handle([record(event)])
    mail = SentEmail.objects.get()
    assert (mail.pk, mail.event_id, mail.created_at) == (event.notification_id, event.event_id, event.created_at)
    assert (mail.recipient, mail.subject, mail.message) == (event.recipient, event.subject, event.message)
    assert (mail.html, mail.reply_to, mail.send_before) == (event.html, event.reply_to, event.send_before)
    assert (mail.status, mail.status_version, mail.retry_count, mail.attempts) == (Status.PROCESSING, 0, 0, [])
    assert mail.sender == settings.DEFAULT_FROM_EMAIL


def test_what_a_mail_is_made_of_is_fixed_at_intake(intake: Intake) -> None:
    event = created()
    intake.handle([record(event)])
    mail = SentEmail.objects.get()
    assert mail.message_id == f"<{event.notification_id}@example.com>"
    assert mail.dated_at.microsecond == 0
    assert abs(mail.dated_at - now()) < timedelta(seconds=60)


@pytest.mark.fault(31)
def test_duplicates_in_a_batch_and_over_batches_make_one_row(intake: Intake) -> None:
    event, again = created(), created()
    intake.handle([record(event), record(again), record(event, offset=1)])
    intake.handle([record(again, offset=2), record(event, offset=3)])
    assert set(SentEmail.objects.values_list("pk", flat=True)) == {event.notification_id, again.notification_id}
    assert not reports()


@pytest.mark.fault(31)
def test_the_first_of_two_events_of_a_notification_counts(intake: Intake) -> None:
    first = created(subject="first")
    second = created(notification_id=first.notification_id, subject="second")
    intake.handle([record(first), record(second)])
    intake.handle([record(second)])
    assert SentEmail.objects.get().subject == "first"


@pytest.mark.fault(14, 27, 31)
@pytest.mark.parametrize("status", Status)
def test_kafkas_own_redelivery_is_silent(intake: Intake, sending: Sending, status: str) -> None:
    pk = store(status=status, due_at=None)[0]
    intake.handle([record(created(notification_id=pk))])
    assert (OutboxEvent.objects.count(), sending.rings) == (0, 0)
    assert SentEmail.objects.get().status == status


@pytest.mark.fault(33)
@pytest.mark.parametrize(
    ("status", "fields", "type_", "told"),
    [
        (Status.PROCESSING, {}, "EmailDeferred", {"next_attempt_at": None}),
        (Status.RETRY_PENDING, {"due_at": ahead(hours=1).replace(microsecond=0)}, "EmailDeferred", {}),
        (Status.SENT, {"sent_at": ago(days=1), "due_at": None}, "EmailSent", {}),
        (Status.FAILED, {"failure_class": "recipient", "failure_code": "5.1.1", "due_at": None}, "EmailFailed", {}),
        (
            Status.UNCERTAIN,
            {"uncertain_phase": "reply", "uncertain_since": ago(hours=1), "due_at": None},
            "EmailUncertain",
            {},
        ),
    ],
)
def test_what_is_published_again_is_answered_with_its_state(
    intake: Intake, sending: Sending, *, status: str, fields: dict[str, Any], type_: str, told: dict[str, Any]
) -> None:
    pk = store(status=status, status_version=4, possible_duplicates=2, **fields)[0]
    intake.handle([record(created(notification_id=pk), publication=2)])
    report = reports()[0]
    assert (type(report).__name__, report.notification_id, report.status_version) == (type_, pk, 4)
    assert (report.possible_duplicates, sending.rings) == (2, 1)
    if status == Status.RETRY_PENDING:
        told = {"next_attempt_at": fields["due_at"]}
    if status == Status.SENT:
        told = {"sent_at": fields["sent_at"]}
    assert {name: getattr(report, name) for name in told} == told
    mail = SentEmail.objects.get()
    assert (mail.status, mail.status_version) == (status, 4)


def test_a_failure_and_an_uncertainty_are_told_in_full(intake: Intake) -> None:
    failed = store(status=Status.FAILED, failure_class="size", failure_code="5.3.4", failure_detail="5.3.4 Too big")[0]
    since = ago(hours=1)
    held = store(status=Status.UNCERTAIN, uncertain_phase="body", uncertain_since=since, uncertain_host="mx.test")[0]
    intake.handle([record(created(notification_id=pk), publication=3) for pk in (failed, held)])
    by_id = {report.notification_id: report for report in reports()}
    failure, uncertain = by_id[failed].failure, by_id[held].uncertain
    assert (failure.failure_class, failure.code, failure.detail) == ("size", "5.3.4", "5.3.4 Too big")
    assert (uncertain.phase, uncertain.since, uncertain.host) == ("body", since, "mx.test")
    assert uncertain.message_id == f"<{held}@example.com>"


def test_an_unknown_notification_that_is_published_again_is_taken_in_in_silence(intake: Intake) -> None:
    intake.handle([record(created(), publication=5)])
    assert SentEmail.objects.count() == 1
    assert not reports()


@pytest.mark.fault(29)
@pytest.mark.parametrize(
    ("value", "letter_class"),
    [
        (None, "unreadable"),
        (b"\xff not json", "unreadable"),
        (b'{"event_type": "EMAIL_TELEPORTED", "schema_version": 1}', "unknown_type"),
        (b'{"event_type": "EMAIL_NOTIFICATION_CREATED", "schema_version": 2}', "newer_schema"),
        (
            encode(
                EmailSent(event_id=new_id(), notification_id=new_id(), occurred_at=now(), producer="x", sent_at=now())
            ),
            "unknown_type",
        ),
    ],
)
def test_what_cannot_be_read_is_a_dead_letter_and_its_neighbours_are_taken_in(
    intake: Intake, sending: Sending, value: bytes | None, letter_class: str
) -> None:
    intake.handle([record(created()), record(value, offset=17), record(created())])
    letter = DeadLetter.objects.get()
    assert (letter.letter_class, letter.source_offset, letter.source_partition) == (letter_class, 17, 0)
    assert (letter.source_topic, bytes(letter.source_key or b"")) == ("notification-events-topic", b"key")
    assert (None if letter.original is None else bytes(letter.original or b"")) == value
    assert SentEmail.objects.count() == 2
    assert (OutboxEvent.objects.get().topic, sending.rings) == ("email-dlq-topic", 1)


@pytest.mark.fault(27)
def test_the_same_unreadable_record_again_is_the_same_dead_letter(intake: Intake) -> None:
    intake.handle([record(b"{", offset=1)])
    intake.handle([record(b"{", offset=1), record(b"{", offset=2)])
    assert (DeadLetter.objects.count(), len(dead_letter_events())) == (2, 2)


@pytest.mark.parametrize("created_days_ago", [46, 1000])
def test_an_unknown_one_of_long_ago_is_not_sent_but_said_to_be_uncertain(intake: Intake, created_days_ago: int) -> None:
    event = created(created_at=ago(days=created_days_ago))
    intake.handle([record(event)])
    held = SentEmail.objects.get()
    assert (held.status, held.due_at, held.uncertain_phase) == (SentEmail.Status.UNCERTAIN, None, "unknown")
    letter = DeadLetter.objects.get()
    assert (letter.letter_class, letter.notification_id) == ("too_old", event.notification_id)
    assert bytes(letter.original or b"") == encode(event)
    report = reports()[0]
    assert (type(report).__name__, report.notification_id, report.status_version) == (
        "EmailUncertain",
        event.notification_id,
        1,
    )


def test_one_that_is_too_old_has_one_dead_letter_however_often_it_is_asked_for(intake: Intake) -> None:
    event = created(created_at=ago(days=100))
    for publication in range(1, 5):
        intake.handle([record(event, offset=publication, publication=publication)])
    assert (DeadLetter.objects.count(), len(reports())) == (1, 4)


@pytest.mark.parametrize(
    "times",
    [
        {"created_at": ago(days=44)},
        {"created_at": ago(days=400), "send_after": ago(days=44)},
        {"created_at": ago(days=400), "send_after": ahead(minutes=1)},
    ],
    ids=["within half of the retention", "scheduled", "just due"],
)
def test_its_age_counts_from_when_it_could_be_sent(intake: Intake, times: dict[str, object]) -> None:
    intake.handle([record(created(**times))])
    assert SentEmail.objects.count() == 1
    assert not DeadLetter.objects.exists()


def test_a_known_one_is_never_too_old(intake: Intake) -> None:
    pk = store(status=Status.SENT, sent_at=ago(days=100), due_at=None)[0]
    intake.handle([record(created(notification_id=pk, created_at=ago(days=100)), publication=2)])
    assert [type(report).__name__ for report in reports()] == ["EmailSent"]


def test_with_room_a_mail_is_leased_marked_and_handed_over(intake: Intake, sending: Sending) -> None:
    events = [created(), created(on_uncertain="hold")]
    intake.handle([record(event) for event in events])
    resend, hold = (SentEmail.objects.get(pk=event.notification_id) for event in events)
    assert {mail.lease_token for mail in (resend, hold)} == {sending.sender.token}
    assert (resend.crashes, hold.crashes) == (1, 1)
    assert resend.data_started_at is not None
    assert hold.data_started_at is None
    assert SentEmail.objects.filter(due_at__gt=in_seconds(50), due_at__lte=in_seconds(60)).count() == 2
    assert sending.held == {event.notification_id for event in events}
    assert not any(delivery.found_marked for delivery in sending.sender._held.values())


def test_beyond_the_room_mails_are_due_now_and_whoever_has_room_is_told(intake: Intake, sending: Sending) -> None:
    sending.sender._more_due = False
    intake.handle([record(created()) for _ in range(70)])
    free = SentEmail.objects.filter(lease_token=0)
    assert (len(sending.held), free.count()) == (64, 6)
    assert all((mail.crashes, mail.data_started_at) == (0, None) for mail in free)
    assert free.filter(due_at__lte=in_seconds(0.01)).count() == 6
    assert sending.sender._more_due


def test_while_the_server_is_away_there_is_no_room(intake: Intake, sending: Sending) -> None:
    sending.breaker.failure("gone")
    intake.handle([record(created())])
    mail = SentEmail.objects.get()
    assert (mail.lease_token, mail.crashes, mail.data_started_at, sending.held) == (0, 0, None, set())


@pytest.mark.django_db(transaction=True)
def test_a_batch_costs_two_statements_and_a_commit(mariadb: None, intake: Intake) -> None:
    for count in (1, 300):
        with counted_sql() as sql:
            intake.handle([record(created()) for _ in range(count)])
        assert (len(sql.statements), sql.commits) == (2, 1)


@pytest.mark.django_db(transaction=True)
def test_a_batch_with_answers_costs_four_statements_and_a_commit(mariadb: None, intake: Intake) -> None:
    known = [created(notification_id=pk) for pk in store(20, status=Status.SENT, sent_at=ago(hours=1), due_at=None)]
    with counted_sql() as sql:
        intake.handle([record(created()) for _ in range(100)] + [record(event, publication=2) for event in known])
    assert (len(sql.statements), sql.commits) == (4, 1)
    assert len(reports()) == 20
