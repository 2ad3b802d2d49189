"""Replaying dead letters of the e-mail service: judged, guarded, audited."""

import re
import signal
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client

from email_project.emails.models import Restore, SentEmail
from email_project.emails.outcomes import Kind
from email_project.emails.replay import MailReplayer
from email_project.emails.settlement import settle
from shared_events.contracts.events import encode, new_id
from shared_events.dead_letters.models import AuditEntry, DeadLetter
from shared_events.dead_letters.release import ParkedRelease
from shared_events.dead_letters.replay import Order, Verdict, dismiss, judge, replay
from tests.email_project.factories import POLICY, TOKEN, ago, claimed, created, record, reports, result

pytestmark = pytest.mark.django_db

Status = SentEmail.Status
ORDER = Order("ops", "the mailbox exists now")


def failed(**fields: Any) -> DeadLetter:
    """A mail that the server refused for good, with its dead letter."""
    mail = claimed(**fields)[0]
    settle([result(mail, Kind.FAILED)], TOKEN, POLICY)
    letter: DeadLetter = DeadLetter.objects.get(notification_id=mail.id)
    return letter


def verdict(letter: DeadLetter) -> Verdict:
    letter.refresh_from_db()
    return judge([letter], MailReplayer())[letter.pk]


def mail_of(letter: DeadLetter) -> SentEmail:
    found: SentEmail = SentEmail.objects.get(pk=letter.subject_id)
    return found


def test_a_failed_mail_is_due_again_with_a_new_budget_and_says_so() -> None:
    letter = failed(retry_count=5)
    assert [done for _, done in replay([letter], MailReplayer(), ORDER)] == [Verdict.REPLAY]
    mail = mail_of(letter)
    assert (mail.status, mail.retry_count, mail.generation, mail.due_at is None) == (Status.RETRY_PENDING, 0, 1, False)
    assert type(reports()[-1]).__name__ == "EmailReplayed"
    assert reports()[-1].status_version == mail.status_version


def test_a_replay_is_audited() -> None:
    letter = failed()
    list(replay([letter], MailReplayer(), ORDER))
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.operator, entry.subject_id, entry.reason) == (
        "replay",
        "ops",
        letter.pk,
        "the mailbox exists now",
    )


@pytest.mark.fault(61)
@pytest.mark.parametrize(("since", "copies"), [(1, 3), (-1, 2)], ids=["failed before the restore", "failed after it"])
def test_a_replay_of_what_failed_before_a_restore_counts_as_a_possible_copy(since: int, copies: int) -> None:
    letter = failed(possible_duplicates=2)
    Restore.objects.create(restored_at=letter.created_at + timedelta(seconds=since), floor=1, consumed={})
    list(replay([letter], MailReplayer(), ORDER))
    assert (mail_of(letter).possible_duplicates, reports()[-1].possible_duplicates) == (copies, copies)


@pytest.mark.fault(57)
def test_a_second_replay_does_nothing() -> None:
    letter = failed()
    list(replay([letter], MailReplayer(), ORDER))
    stale = DeadLetter.objects.get(pk=letter.pk)
    stale.replayed_at = None  # as another operator's page still shows it
    assert [done for _, done in replay([stale], MailReplayer(), ORDER)] == [Verdict.SUPERSEDED]
    assert mail_of(letter).generation == 1


@pytest.mark.fault(58, 59)
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": Status.SENT}, Verdict.ALREADY_SENT),
        ({"status": Status.UNCERTAIN}, Verdict.UNCERTAIN),
        ({"status": Status.RETRY_PENDING}, Verdict.SUPERSEDED),
        ({"generation": 4}, Verdict.SUPERSEDED),
        ({"send_before": ago(hours=1)}, Verdict.EXPIRED),
        ({"received_at": ago(days=46)}, Verdict.TOO_OLD),
        ({}, Verdict.REPLAY),
    ],
)
def test_the_dry_run_says_what_would_happen(changes: dict[str, Any], expected: Verdict) -> None:
    letter = failed()
    if changes:
        SentEmail.objects.filter(pk=letter.subject_id).update(**changes)
    before = mail_of(letter).status
    assert verdict(letter) is expected
    assert mail_of(letter).status == before


@pytest.mark.fault(59)
def test_a_mail_that_was_deleted_since_is_not_sent_again() -> None:
    letter = failed()
    SentEmail.objects.all().delete()
    assert verdict(letter) is Verdict.TOO_OLD


def test_a_dismissed_letter_is_never_replayed() -> None:
    letter = failed()
    assert dismiss([letter], ORDER) == 1
    assert verdict(letter) is Verdict.DONE
    assert dismiss([letter], ORDER) == 0


def parked(value: bytes, letter_class: str) -> DeadLetter:
    letter = DeadLetter.of_record(record(value), letter_class=letter_class, cause="parked by an older version")
    letter.save(force_insert=True)
    return letter


@pytest.mark.fault(62)
def test_a_parked_record_that_can_be_read_now_is_taken_in() -> None:
    event = created()
    parked(encode(event), "newer_schema")
    assert ParkedRelease().run_once() == 1
    assert SentEmail.objects.get(pk=event.notification_id).status == Status.PROCESSING
    assert AuditEntry.objects.get().operator == "release"


@pytest.mark.fault(62)
def test_a_parked_record_that_still_cannot_be_read_stays(caplog: pytest.LogCaptureFixture) -> None:
    letter = parked(encode(created()).replace(b'"schema_version":1', b'"schema_version":9'), "newer_schema")
    assert ParkedRelease().run_once() == 0
    assert verdict(letter) is Verdict.UNREADABLE


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("replay_dead_letters", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_prints_what_it_did_and_keeps_to_the_class() -> None:
    letter = failed()
    assert command("--class", "policy", "--reason", "x").startswith("no open dead letters of class 'policy'")
    assert command("--all", "--dry-run").endswith("1 replay\n")
    assert mail_of(letter).status == Status.FAILED
    assert command("--id", str(letter.notification_id), "--reason", "x", "--per-second", "1000").endswith("1 replay\n")
    assert mail_of(letter).status == Status.RETRY_PENDING


class FailsAgain(MailReplayer):
    """A server that refuses at once whatever is replayed: each replay leaves another dead letter behind."""

    def replay(self, letter: DeadLetter) -> None:
        super().replay(letter)
        DeadLetter.of_notification(
            letter.subject_id, letter.generation + 1, letter_class="recipient", cause="no", original=b"{}"
        ).save()


def test_the_command_replays_each_letter_once_that_was_open_when_it_began(settings: Any) -> None:
    settings.DEAD_LETTER_REPLAYER = f"{__name__}.FailsAgain"
    letters = [failed(), failed()]
    assert command("--all", "--reason", "x", "--per-second", "1000").endswith("\n2 replay\n")
    assert {letter.generation for letter in DeadLetter.objects.open()} == {1}
    assert DeadLetter.objects.open().count() == len(letters)


def test_a_dry_run_says_what_would_be_and_a_run_says_what_was() -> None:
    failed()
    assert "  would be processed again\n" in command("--all", "--dry-run")
    assert "  replayed\n" in command("--all", "--reason", "x", "--per-second", "1000")


def test_a_class_that_no_open_letter_has_is_answered_with_those_that_there_are() -> None:
    assert command("--class", "nope", "--dry-run") == "no open dead letters of class 'nope'; open ones are of: none\n"
    letter_class = failed().letter_class
    failed()
    assert command("--class", "nope", "--dry-run").endswith(f"open ones are of: {letter_class}\n")


class StopsAfterOne(MailReplayer):
    """An operator's Ctrl-C while the first letter is replayed."""

    def replay(self, letter: DeadLetter) -> None:
        super().replay(letter)
        signal.raise_signal(signal.SIGINT)


def test_a_signal_ends_the_command_after_the_letter_under_way_and_it_says_what_is_left(settings: Any) -> None:
    settings.DEAD_LETTER_REPLAYER = f"{__name__}.StopsAfterOne"
    for _ in range(3):
        failed()
    out = StringIO()
    with pytest.raises(CommandError, match="2 of 3 were not looked at"):
        call_command("replay_dead_letters", "--all", "--reason", "x", stdout=out)
    assert out.getvalue().endswith("\n1 replay\n")
    assert DeadLetter.objects.open().count() == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--all",), "--reason is missing"),
        (("--all", "--reason", " "), "--reason is missing"),
        (("--reason", "x"), "nothing is chosen"),
        (("--id", "abc", "--reason", "x"), "--id"),
        (("--all", "--class", "recipient", "--reason", "x"), "not allowed with"),
        (("--all", "--reason", "x", "--per-second", "0"), "--per-second 0 is no number"),
        (("--all", "--reason", "x", "--per-second", "nan"), "--per-second nan is no number"),
        (("--all", "--reason", "x", "--per-second", "1e-300"), "--per-second 1e-300 is no number"),
    ],
)
def test_the_commands_errors_say_what_to_do(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        command(*arguments)


def page(client: Client, letter: UUID, **fields: str) -> Any:
    return client.post(
        "/admin/dead_letters/deadletter/", {"action": "replay_letters", "_selected_action": str(letter), **fields}
    )


def test_the_admin_asks_first_and_then_replays(admin_user: User) -> None:
    letter = failed()
    client = Client()
    client.force_login(admin_user)
    asked = page(client, letter.pk)
    assert asked.status_code == 200
    assert b"would be processed again" in asked.content
    assert mail_of(letter).status == Status.FAILED
    assert page(client, letter.pk, confirmed="yes", reason="").status_code == 200  # asks again: a reason is required
    assert mail_of(letter).status == Status.FAILED
    assert page(client, letter.pk, confirmed="yes", reason="the mailbox exists").status_code == 302
    assert mail_of(letter).status == Status.RETRY_PENDING
    assert AuditEntry.objects.get().operator == "staff:admin"


def test_a_page_holds_as_many_letters_as_a_form_can_carry_and_says_how_many_more_were_chosen(admin_user: User) -> None:
    DeadLetter.objects.bulk_create(
        DeadLetter.of_notification(new_id(), 0, letter_class="policy", cause="550", original=b"{}") for _ in range(503)
    )
    client = Client()
    client.force_login(admin_user)
    chosen = {"action": "dismiss_letters", "select_across": "1", "_selected_action": "1"}
    asked = client.post("/admin/dead_letters/deadletter/", chosen)
    assert b"Only the first 500 are shown and meant; 3 more are chosen." in asked.content
    ids = re.findall(rb'name="_selected_action" value="([0-9a-f-]+)"', asked.content)
    fields = {
        "action": "dismiss_letters",
        "confirmed": "yes",
        "reason": "old",
        "_selected_action": [i.decode() for i in ids],
    }
    assert client.post("/admin/dead_letters/deadletter/", fields).status_code == 302
    assert DeadLetter.objects.filter(dismissed_at=None).count() == 3
