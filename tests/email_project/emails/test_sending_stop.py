"""An orderly end: nothing new is begun, replies are waited for, and what stays unanswered is said to be uncertain at once."""

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError, connection

from email_project.emails import sending as sending_module
from email_project.emails.models import SentEmail
from tests.email_project.factories import reports, store
from tests.email_project.senders import Sending, state, status
from tests.smtp_servers import Script, ScriptedSmtpServer, Step

pytestmark = pytest.mark.django_db(transaction=True)
Status = SentEmail.Status
Start = Callable[..., Sending]


def sending_one_with_queue(
    server: ScriptedSmtpServer, start: Start, step: Step, **options: Any
) -> tuple[Sending, set[UUID]]:
    """A sender of one connection that waits for a reply while more mails are queued; and what it holds."""
    server.script = Script(steps={"reply": [step]})
    store(10, on_uncertain=options.pop("on_uncertain", "resend"))
    sending = start(connections=1, **options)
    sending.run_until(lambda: server.received and len(sending.held) == 10)
    return sending, sending.held


def states() -> dict[str, int]:
    found: dict[str, int] = {}
    for mail in SentEmail.objects.all():
        found[mail.status] = found.get(mail.status, 0) + 1
    return found


@pytest.mark.fault(25)
def test_what_was_not_begun_goes_back_unmarked_and_the_reply_is_waited_for(
    server: ScriptedSmtpServer, start: Start
) -> None:
    sending, _ = sending_one_with_queue(server, start, Step(delay_seconds=0.7))
    sending.close()
    assert states() == {Status.SENT: 1, Status.PROCESSING: 9}
    for mail in SentEmail.objects.filter(status=Status.PROCESSING):
        assert (mail.lease_token, mail.crashes, mail.data_started_at) == (0, 0, None)
        assert mail.due_at is not None
    assert (len(server.received), len(reports())) == (1, 1)


@pytest.mark.parametrize(("on_uncertain", "status_"), [("resend", Status.RETRY_PENDING), ("hold", Status.UNCERTAIN)])
def test_what_stays_unanswered_is_uncertain_at_once(
    server: ScriptedSmtpServer, start: Start, on_uncertain: str, status_: str
) -> None:
    step = Step(delay_seconds=60)
    sending, _ = sending_one_with_queue(
        server, start, step, grace_seconds=0.2, on_uncertain=on_uncertain, reply_timeout_seconds=60
    )
    began = time.monotonic()
    sending.close()
    assert time.monotonic() - began < 10
    assert states() == {status_: 1, Status.PROCESSING: 9}
    mail = SentEmail.objects.get(status=status_)
    assert (mail.lease_token, mail.data_started_at) == (0, None)
    assert (mail.attempts[-1]["phase"], mail.attempts[-1]["outcome"]) == ("reply", "uncertain")
    assert mail.possible_duplicates == (1 if on_uncertain == "resend" else 0)


def test_a_mail_that_did_not_reach_data_in_time_is_not_begun_any_more(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(steps={"rcpt": [Step(delay_seconds=1)]})
    pk = store()[0]
    sending = start(connections=1, grace_seconds=0.1)
    sending.run_until(lambda: server.connections and "RCPT" in server.connections[0].commands)
    sending.close()
    assert (status(pk), state(pk).lease_token, state(pk).data_started_at) == (Status.PROCESSING, 0, None)
    server.wait_until(lambda running: running.connections[0].is_closed)
    assert "DATA" not in server.connections[0].commands
    assert not server.received


def test_nothing_is_taken_from_intake_any_more(server: ScriptedSmtpServer, start: Start) -> None:
    sending = start()
    assert sending.sender.room() == 64
    sending.close()
    assert sending.sender.room() == 0


def test_connections_are_closed_in_order(server: ScriptedSmtpServer, start: Start) -> None:
    store(5)
    sending = start(connections=1)
    sending.run_until_settled()
    sending.close()
    server.wait_until(lambda running: all(made.is_closed for made in running.connections))
    assert server.connections[0].commands[-1] == "QUIT"
    assert not any(thread.is_alive() for thread in sending.sender._threads)


@pytest.mark.fault(39)
def test_an_acknowledged_mail_is_written_though_the_database_is_away_at_first(
    server: ScriptedSmtpServer, start: Start
) -> None:
    sending, _ = sending_one_with_queue(server, start, Step(delay_seconds=0.3))
    failures = [OperationalError(2013, "Lost connection during query")] * 3

    def lose(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if failures and sql.startswith("UPDATE"):
            raise failures.pop()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(lose):
        sending.close()
    assert not failures
    assert states() == {Status.SENT: 1, Status.PROCESSING: 9}
    assert not SentEmail.objects.exclude(lease_token=0).exists()


def test_a_database_that_stays_away_does_not_keep_it_from_ending(
    server: ScriptedSmtpServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending_module, "FINAL_SETTLE_SECONDS", 0.3)
    sending, held = sending_one_with_queue(
        server, start, Step(delay_seconds=60), grace_seconds=0.2, reply_timeout_seconds=60
    )

    def lose(_execute: Any, _sql: str, _params: Any, _many: bool, _context: Any) -> Any:
        raise OperationalError(2006, "Server has gone away")

    began = time.monotonic()
    with connection.execute_wrapper(lose):
        sending.close()
    assert time.monotonic() - began < 15
    assert SentEmail.objects.filter(pk__in=held, data_started_at__isnull=False).count() == 10  # the next owner knows


def test_an_answer_that_comes_while_the_end_is_written_wins(server: ScriptedSmtpServer, start: Start) -> None:
    sending, _ = sending_one_with_queue(server, start, Step(delay_seconds=0.6), grace_seconds=0.1)
    begun = threading.Event()

    def hold_back(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("UPDATE") and not begun.is_set():
            if server.accepted:
                begun.set()
            raise OperationalError(1205, "Lock wait timeout exceeded")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(hold_back):
        sending.close()
    assert states() == {Status.SENT: 1, Status.PROCESSING: 9}
