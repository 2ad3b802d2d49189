"""The sender against a real server: what the server answers, and what becomes of the mail."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from email_project.emails.intake import Intake
from email_project.emails.models import SentEmail
from email_project.emails.settlement import DeliveryPolicy
from shared_events.dead_letters.models import DeadLetter
from shared_events.outbox.claim import in_seconds
from tests.email_project.factories import ago, ahead, created, record, reports, row, store
from tests.email_project.senders import Sending, state, status
from tests.smtp_servers import Script, ScriptedSmtpServer, Step

pytestmark = pytest.mark.django_db(transaction=True)
Status = SentEmail.Status
Start = Callable[..., Sending]
SLOW = DeliveryPolicy(max_attempts=12, retry_base_seconds=600, retry_max_seconds=3600, max_resends=10)


def outcomes(pk: UUID) -> list[tuple[str, str]]:
    return [(attempt["phase"], attempt["outcome"]) for attempt in SentEmail.objects.get(pk=pk).attempts]


def test_a_due_mail_is_sent_once_and_settled(server: ScriptedSmtpServer, start: Start) -> None:
    pk = store(subject="Grüße", message="Hello\n.dot\n")[0]
    sending = start()
    sending.run_until_settled()
    mail = server.accepted[0]
    assert (mail.envelope_from, mail.envelope_to) == ("noreply@example.com", ["ada@example.com"])
    assert (mail.message["Subject"], mail.message_id) == ("Grüße", f"<{pk}@example.com>")
    assert mail.message.get_content() == "Hello\r\n.dot\r\n"
    assert mail.message["X-NotifyX-Copy"] is None
    assert (len(server.received), status(pk), sending.rings) == (1, Status.SENT, 1)
    assert outcomes(pk) == [("reply", "sent")]
    assert type(reports()[0]).__name__ == "EmailSent"


def test_many_mails_share_the_connections(server: ScriptedSmtpServer, start: Start) -> None:
    ids = store(150)
    start(connections=3).run_until_settled()
    assert {mail.message_id for mail in server.accepted} == {f"<{pk}@example.com>" for pk in ids}
    assert len(server.received) == 150
    assert len(server.connections) <= 3


def test_mails_that_are_not_due_are_left(server: ScriptedSmtpServer, start: Start) -> None:
    later = row(due_at=in_seconds(3600))
    SentEmail.objects.bulk_create([later])
    due = store()[0]
    sending = start()
    sending.run_until(lambda: status(due) == Status.SENT)
    assert (status(later.pk), len(server.received)) == (Status.PROCESSING, 1)


def test_handed_over_mails_are_sent_without_a_claim(server: ScriptedSmtpServer, start: Start) -> None:
    sending = start(polls=False)
    sending.sender._more_due = False
    event = created()
    Intake(sending.sender, ring=sending.ring).handle([record(event)])
    sending.run_until_settled()
    assert [mail.message_id for mail in server.accepted] == [f"<{event.notification_id}@example.com>"]
    assert (state(event.notification_id).status, state(event.notification_id).possible_duplicates) == (Status.SENT, 0)


@pytest.mark.fault(44)
def test_550_fails_for_good_and_leaves_a_dead_letter(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(recipients={"bad@example.com": {"rcpt": ["550 5.1.1 No such user"]}})
    bad, good = store(recipient="bad@example.com")[0], store()[0]
    start().run_until_settled()
    assert (status(bad), status(good)) == (Status.FAILED, Status.SENT)
    assert (state(bad).failure_class, state(bad).failure_code, state(bad).retry_count) == ("recipient", "5.1.1", 1)
    assert DeadLetter.objects.get().notification_id == bad
    assert {type(report).__name__ for report in reports()} == {"EmailFailed", "EmailSent"}


@pytest.mark.fault(43)
def test_451_is_tried_again_and_then_sent(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(steps={"rcpt": [Step(reply="451 4.3.0 Later", times=2)]})
    pk = store()[0]
    start().run_until_settled()
    assert (status(pk), state(pk).retry_count, state(pk).possible_duplicates) == (Status.SENT, 2, 0)
    assert outcomes(pk) == [("rcpt", "retry"), ("rcpt", "retry"), ("reply", "sent")]
    assert len(server.received) == 1
    names = [(type(report).__name__, report.status_version) for report in reports()]
    assert names == [("EmailDeferred", 1), ("EmailDeferred", 2), ("EmailSent", 3)]


@pytest.mark.fault(44)
def test_a_refusal_at_the_final_dot_is_a_refusal(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(steps={"reply": [Step(reply="452 4.2.2 Mailbox full", times=1)]})
    pk = store()[0]
    start().run_until_settled()
    assert (status(pk), state(pk).retry_count, state(pk).possible_duplicates) == (Status.SENT, 1, 0)


@pytest.mark.fault(43)
def test_refusals_come_to_an_end(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(steps={"rcpt": ["451 4.3.0 Never"]})
    pk = store()[0]
    start(
        policy=DeliveryPolicy(max_attempts=3, retry_base_seconds=0, retry_max_seconds=0, max_resends=0)
    ).run_until_settled()
    assert (status(pk), state(pk).retry_count, state(pk).failure_class) == (Status.FAILED, 3, "exhausted")


@pytest.mark.fault(43)
def test_greylisting_waits_five_minutes(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(steps={"rcpt": ["450 4.7.1 Greylisted"]})
    pk = store()[0]
    start().run_until(lambda: status(pk) == Status.RETRY_PENDING)
    assert SentEmail.objects.filter(due_at__gt=in_seconds(290), due_at__lte=in_seconds(300)).exists()


@pytest.mark.fault(38, 46)
@pytest.mark.parametrize(
    "step", [Step(then="reset"), Step(then="close"), Step(delay_seconds=60)], ids=["reset", "close", "silent"]
)
def test_no_answer_to_the_final_dot_is_uncertain_and_sent_again_as_a_marked_copy(
    server: ScriptedSmtpServer, start: Start, step: Step
) -> None:
    server.script = Script(steps={"reply": [Step(delay_seconds=step.delay_seconds, then=step.then, times=1)]})
    pk = store()[0]
    start(reply_timeout_seconds=0.3).run_until_settled()
    assert (status(pk), state(pk).possible_duplicates, state(pk).retry_count) == (Status.SENT, 1, 0)
    first, second = server.received
    assert (first.acknowledged, second.acknowledged) == (False, True)
    assert first.message_id == second.message_id == f"<{pk}@example.com>"
    assert (first.message["X-NotifyX-Copy"], second.message["X-NotifyX-Copy"]) == (None, "1")
    assert first.data == second.data.replace(b"X-NotifyX-Copy: 1\r\n", b"")
    assert outcomes(pk) == [("reply", "uncertain"), ("reply", "sent")]
    names = [(type(report).__name__, report.possible_duplicates) for report in reports()]
    assert names == [("EmailDeferred", 1), ("EmailSent", 1)]


@pytest.mark.fault(38)
def test_a_mail_that_is_to_be_held_when_uncertain_is_never_sent_again(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(recipients={"hold@example.com": {"reply": [Step(then="reset")]}})
    held, other = store(on_uncertain="hold", recipient="hold@example.com")[0], store()[0]
    start().run_until_settled()
    assert (status(held), status(other)) == (Status.UNCERTAIN, Status.SENT)
    assert (state(held).uncertain_phase, state(held).due_at) == ("reply", None)
    assert [mail.message_id for mail in server.received].count(f"<{held}@example.com>") == 1
    assert {type(report).__name__ for report in reports()} == {"EmailUncertain", "EmailSent"}


@pytest.mark.fault(37)
def test_a_hold_mail_is_marked_right_before_data(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(
        steps={"rcpt": [Step(delay_seconds=0.3, times=1)], "reply": [Step(delay_seconds=0.5, times=1)]}
    )
    pk = store(on_uncertain="hold")[0]
    sending = start(connections=1)
    sending.run_until(lambda: server.connections and "RCPT" in server.connections[0].commands)
    assert (state(pk).crashes, state(pk).data_started_at) == (1, None)
    sending.run_until(lambda: server.received)
    assert state(pk).data_started_at is not None
    sending.run_until_settled()
    assert (status(pk), state(pk).data_started_at) == (Status.SENT, None)


def test_a_hold_mail_that_is_refused_before_data_is_never_marked(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(steps={"rcpt": [Step(reply="451 4.3.0 Later")]})
    pk = store(on_uncertain="hold")[0]
    start(policy=SLOW).run_until(lambda: status(pk) == Status.RETRY_PENDING)
    assert (state(pk).data_started_at, outcomes(pk)) == (None, [("rcpt", "retry")])


@pytest.mark.fault(37, 39)
@pytest.mark.parametrize(("on_uncertain", "expected"), [("resend", Status.SENT), ("hold", Status.UNCERTAIN)])
def test_what_a_dead_worker_left_marked_is_uncertain(
    server: ScriptedSmtpServer, start: Start, on_uncertain: str, expected: str
) -> None:
    left: dict[str, Any] = {
        "lease_token": 99,
        "crashes": 1,
        "data_started_at": ago(minutes=2),
        "due_at": ago(seconds=1),
    }
    pk = store(on_uncertain=on_uncertain, **left)[0]
    start().run_until_settled()
    assert status(pk) == expected
    assert outcomes(pk)[0] == ("data", "uncertain")
    assert len(server.received) == (1 if expected == Status.SENT else 0)
    assert state(pk).possible_duplicates == (1 if expected == Status.SENT else 0)


@pytest.mark.fault(36)
def test_what_a_dead_worker_left_unmarked_is_sent_and_no_copy_is_counted(
    server: ScriptedSmtpServer, start: Start
) -> None:
    pk = store(on_uncertain="hold", lease_token=99, crashes=1, due_at=ago(seconds=1))[0]
    start().run_until_settled()
    assert (status(pk), state(pk).possible_duplicates, len(server.received)) == (Status.SENT, 0, 1)


@pytest.mark.fault(37)
def test_a_mark_that_was_left_behind_survives_another_crash_before_it_is_settled() -> None:
    pk = store(on_uncertain="hold", lease_token=99, crashes=1, data_started_at=ago(minutes=2), due_at=ago(seconds=1))[0]
    found = SentEmail.claim(batch=1, lease_seconds=-1, token=5)
    assert found[0][SentEmail.CLAIM_FIELDS.index("data_started_at")] is not None
    assert state(pk).data_started_at is not None
    again = SentEmail.claim(batch=1, lease_seconds=60, token=6)
    assert again[0][SentEmail.CLAIM_FIELDS.index("data_started_at")] is not None


@pytest.mark.fault(50)
def test_a_mail_that_kills_its_workers_is_poison(server: ScriptedSmtpServer, start: Start) -> None:
    pk = store(on_uncertain="hold", crashes=20)[0]
    start().run_until_settled()
    assert (status(pk), state(pk).failure_class, server.received) == (Status.FAILED, "poison", [])
    assert DeadLetter.objects.get().letter_class == "poison"


@pytest.mark.fault(50)
def test_a_mail_that_cannot_be_rendered_fails_alone(server: ScriptedSmtpServer, start: Start) -> None:
    bad, good = store(recipient="no address")[0], store()[0]
    start().run_until_settled()
    assert (status(bad), status(good), len(server.received)) == (Status.FAILED, Status.SENT, 1)


@pytest.mark.fault(49)
def test_a_mail_past_its_deadline_expires_unsent(server: ScriptedSmtpServer, start: Start) -> None:
    pk = store(send_before=ago(seconds=1))[0]
    start().run_until_settled()
    assert (status(pk), state(pk).failure_class, state(pk).failure_code) == (Status.FAILED, "expired", "expired")
    assert (state(pk).retry_count, server.received) == (0, [])


@pytest.mark.fault(49)
def test_the_deadline_is_judged_last_before_data(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(steps={"rcpt": [Step(delay_seconds=1)]})
    pk = store(send_before=ahead(seconds=0.6))[0]
    start(connections=1).run_until_settled()
    assert (status(pk), state(pk).failure_class, server.received) == (Status.FAILED, "expired", [])
    assert "DATA" not in server.connections[0].commands


def test_a_mail_within_its_deadline_is_sent(server: ScriptedSmtpServer, start: Start) -> None:
    pk = store(send_before=ahead(minutes=1))[0]
    start().run_until_settled()
    assert (status(pk), len(server.received)) == (Status.SENT, 1)
