"""After the database was restored from a backup: what nobody can know is held and said, what cannot have been sent is sent."""

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models.functions import Now
from pytest_django import Settings

from email_project.emails.intake import Intake
from email_project.emails.models import Restore, SentEmail
from email_project.emails.restores import begin, carry_over
from shared_events.contracts.events import EmailFailed, EmailUncertain, now
from shared_events.outbox.models import OutboxEvent
from shared_events.runtime.models import ProcessState
from tests.email_project.factories import ago, ahead, created, record, reports, store
from tests.email_project.senders import Sending, state
from tests.shared_events.probes import closed_port, counted_sql

pytestmark = [pytest.mark.django_db, pytest.mark.fault(61)]
Status = SentEmail.Status

COMMITTED = 100


@pytest.fixture
def restored() -> Restore:
    return begin({0: COMMITTED})


@pytest.fixture
def sending() -> Sending:
    return Sending()


@pytest.fixture
def intake(restored: Restore, sending: Sending) -> Intake:
    return Intake(sending.sender, ring=sending.ring)


def before(**fields: Any) -> Any:
    return created(created_at=ago(hours=1), **fields)


@pytest.mark.parametrize("status", SentEmail.OPEN)
def test_an_open_mail_is_held_since_it_may_have_been_sent_after_the_backup(restored: Restore, status: str) -> None:
    pk = store(status=status, status_version=3, lease_token=9, crashes=2, data_started_at=Now())[0]
    assert carry_over(restored) == (1, 1, 1)
    mail = state(pk)
    assert (mail.status, mail.uncertain_phase, mail.uncertain_since) == ("UNCERTAIN", "restored", restored.restored_at)
    assert (mail.due_at, mail.lease_token, mail.crashes, mail.data_started_at) == (None, 0, 0, None)
    report = reports()[0]
    assert isinstance(report, EmailUncertain)
    assert (report.status_version, report.generation) == (mail.status_version, mail.generation)
    assert (report.uncertain.phase, report.uncertain.since) == ("restored", restored.restored_at)


def test_every_version_is_above_all_that_was_reported_before(restored: Restore) -> None:
    ids = [store(status=status, status_version=version, due_at=None, uncertain_since=now(), sent_at=now())[0]
           for version, status in enumerate(Status, start=1)]  # fmt: skip
    carry_over(restored, batch=2)
    assert all(state(pk).status_version >= restored.floor > 1_000_000 for pk in ids)


def test_what_is_settled_stays_and_only_what_others_may_know_more_of_is_reported(restored: Restore) -> None:
    sent = store(status=Status.SENT, status_version=1, sent_at=ago(days=1), due_at=None)[0]
    failed = store(status=Status.FAILED, status_version=1, failure_class="recipient", due_at=None, generation=2)[0]
    assert carry_over(restored) == (2, 0, 1)
    assert (state(sent).status, state(failed).status, state(failed).generation) == ("SENT", "FAILED", 2)
    assert [(type(report), report.notification_id) for report in reports()] == [(EmailFailed, failed)]


def test_an_operators_word_from_before_does_not_reach_a_held_mail(restored: Restore) -> None:
    pk = store(status=Status.UNCERTAIN, status_version=2, generation=1, uncertain_since=ago(hours=2), due_at=None)[0]
    carry_over(restored)
    assert state(pk).generation >= restored.floor
    assert reports()[0].generation == state(pk).generation


def test_done_again_after_an_interruption_it_does_no_harm(restored: Restore) -> None:
    pk = store()[0]
    carry_over(restored)
    again = begin({0: COMMITTED})
    assert carry_over(again) == (1, 0, 1)
    assert again.floor > restored.floor
    assert (state(pk).status, [report.status_version for report in reports()][1]) == (
        "UNCERTAIN",
        state(pk).status_version,
    )


def test_the_floor_rises_even_where_the_row_of_an_earlier_restore_is_not_in_the_backup(restored: Restore) -> None:
    Restore.objects.all().delete()
    in_seconds = (now() - restored.restored_at).total_seconds()
    assert begin({}).floor - restored.floor in (int(in_seconds), int(in_seconds) + 1)


@pytest.mark.parametrize(
    ("offset", "publication"), [(COMMITTED - 1, 1), (COMMITTED + 5, 2)], ids=["consumed before", "published again"]
)
def test_an_unknown_one_that_may_have_been_sent_is_held(
    intake: Intake, sending: Sending, offset: int, publication: int
) -> None:
    event = before()
    intake.handle([record(event, offset=offset, publication=publication)])
    mail = SentEmail.objects.get()
    assert (mail.status, mail.uncertain_phase, mail.due_at) == ("UNCERTAIN", "restored", None)
    assert sending.held == set()
    report = reports()[0]
    assert (type(report), report.status_version) == (EmailUncertain, mail.status_version)
    assert intake.restore is not None
    assert min(mail.status_version, mail.generation) >= intake.restore.floor


def test_what_was_only_waiting_in_kafka_is_sent(intake: Intake, sending: Sending) -> None:
    event = before()
    intake.handle([record(event, offset=COMMITTED), record(event, offset=COMMITTED + 7, publication=2)])
    mail = SentEmail.objects.get()
    assert (mail.status, sending.held) == ("PROCESSING", {mail.pk})
    assert intake.restore is not None
    assert mail.status_version == intake.restore.floor


@pytest.mark.parametrize("publication", [1, 2])
def test_what_was_accepted_after_the_restore_is_sent(intake: Intake, sending: Sending, publication: int) -> None:
    event = created(created_at=now() + timedelta(minutes=2))
    intake.handle([record(event, offset=COMMITTED - 1, publication=publication)])
    assert sending.held == {event.notification_id}


def test_of_a_partition_that_is_new_everything_is_waiting(intake: Intake, sending: Sending) -> None:
    Restore.objects.update(consumed={"7": COMMITTED})
    intake.handle([record(before(), offset=3)])
    assert len(sending.held) == 1


def test_a_known_one_is_answered_as_ever(intake: Intake) -> None:
    pk = store(status=Status.SENT, status_version=5, sent_at=ago(hours=1), due_at=None)[0]
    intake.handle([record(before(notification_id=pk), publication=2)])
    assert [type(report).__name__ for report in reports()] == ["EmailSent"]


@pytest.mark.django_db(transaction=True)
def test_a_restore_costs_a_batch_no_statement(mariadb: None, intake: Intake) -> None:
    assert intake.restore is not None
    with counted_sql() as sql:
        intake.handle([record(before(), offset=COMMITTED + n) for n in range(100)])
    assert (len(sql.statements), sql.commits) == (2, 1)


def after_restore(*arguments: str) -> str:
    out = StringIO()
    call_command("after_restore", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_refuses_while_a_worker_runs() -> None:
    ProcessState.objects.create(
        id="host:1:consume_events", command="consume_events", started_at=now(), updated_at=now()
    )
    pk = store()[0]
    with pytest.raises(CommandError, match="host:1:consume_events"):
        after_restore()
    assert (state(pk).status, Restore.objects.count()) == ("PROCESSING", 0)


def test_without_kafka_the_command_changes_nothing_and_says_what_to_do(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"127.0.0.1:{closed_port()}"
    settings.KAFKA = {"bootstrap.servers": address}
    monkeypatch.setattr("shared_events.kafka.offsets.TIMEOUT_SECONDS", 0.5)
    pk = store()[0]
    with pytest.raises(CommandError, match=f"Kafka at {address}.*Nothing was changed") as refusal:
        after_restore()
    assert "KAFKA_BOOTSTRAP_SERVERS" in str(refusal.value)
    assert (state(pk).status, Restore.objects.count(), OutboxEvent.objects.count()) == ("PROCESSING", 0, 0)


def test_a_mail_that_is_due_much_later_is_held_too(restored: Restore) -> None:
    pk = store(status=Status.RETRY_PENDING, status_version=1, due_at=ahead(hours=5))[0]
    carry_over(restored)
    assert state(pk).status == "UNCERTAIN"
