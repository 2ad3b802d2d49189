"""The sender while the server or the database is away, or the configuration is wrong: nothing is consumed, and all goes on after."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from django.db import OperationalError, ProgrammingError, connection

from email_project.emails import sending as sending_module
from email_project.emails import settlement
from email_project.emails.delivery import DeliveryDefectError
from email_project.emails.models import SentEmail
from shared_events.dead_letters.models import DeadLetter
from tests.email_project.factories import reports, store
from tests.email_project.senders import Sending, state, status
from tests.shared_events.probes import Clock, closed_port, wait_until
from tests.smtp_servers import Script, ScriptedSmtpServer, Step

pytestmark = pytest.mark.django_db(transaction=True)
Status = SentEmail.Status
Start = Callable[..., Sending]


def untouched() -> bool:
    """Whether all rows are due, nobody's, and as they were stored."""
    values = (
        "status",
        "status_version",
        "retry_count",
        "possible_duplicates",
        "crashes",
        "lease_token",
        "data_started_at",
    )
    rows = set(SentEmail.objects.filter(due_at__isnull=False).values_list(*values))
    return rows == {(Status.PROCESSING, 0, 0, 0, 0, 0, None)}


@pytest.mark.fault(41)
@pytest.mark.parametrize(
    "script",
    [
        Script(steps={"banner": ["421 4.3.2 Shutting down"]}),
        Script(steps={"banner": ["554 5.3.2 No"]}),
        Script(steps={"mail": ["421 4.3.2 Too busy"]}),
        Script(steps={"data": [Step(reply="421 4.3.2 Shutting down", then="close")]}),
        Script(steps={"ehlo": [Step(then="reset")]}),
        Script(steps={"rcpt": [Step(then="close")]}),
    ],
    ids=["421 banner", "554 banner", "421 at MAIL", "421 at DATA", "reset at EHLO", "closed at RCPT"],
)
def test_a_server_that_is_away_costs_no_mail_anything(
    server: ScriptedSmtpServer, start: Start, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "POSTPONE_SECONDS", 0.2)
    server.script = script
    ids = store(40)
    sending = start(probe_seconds=0.7)
    sending.run_until(lambda: not sending.breaker.is_closed and not sending.held)
    assert untouched()
    server.script = Script()
    sending.run_until_settled()
    assert {status(pk) for pk in ids} == {Status.SENT}
    assert {mail.retry_count for mail in SentEmail.objects.all()} == {0}
    assert (len(server.received), DeadLetter.objects.count(), len(reports())) == (40, 0, 40)


@pytest.mark.fault(41)
def test_a_closed_port_opens_the_circuit_and_claims_nothing_more() -> None:
    store(40)
    sending = Sending(closed_port()).start()
    sending.run_until(lambda: not sending.breaker.is_closed and not sending.held)
    assert "refused" in sending.breaker.reason
    sending.breaker.failure("still", hold_seconds=3600)
    for _ in range(5):
        assert sending.sender.step(0.01) == 0
    assert untouched()
    assert sending.sender.room() == 0
    sending.close()


@pytest.mark.fault(41)
def test_sending_goes_on_by_itself_when_the_server_is_back(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(listening=False)
    server.wait_until(lambda running: not running.is_listening)
    store(5)
    sending = start()
    sending.run_until(lambda: not sending.breaker.is_closed and not sending.held)
    server.script = Script()
    sending.run_until_settled()
    assert len(server.accepted) == 5
    assert sending.breaker.is_closed


@pytest.mark.fault(48)
def test_during_an_outage_one_connection_at_a_time_probes(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(steps={"banner": ["421 4.3.2 Away"]})
    store(40)
    sending = start(connections=8)
    sending.run_until(lambda: not sending.breaker.is_closed and not sending.held)
    before = len(server.connections)
    sending.run_until(lambda: len(server.connections) >= before + 3)
    times = [made.at for made in server.connections[before:]]
    assert all(later - earlier > 0.05 for earlier, later in pairwise(times))


@pytest.mark.fault(41)
def test_a_probe_that_no_thread_has_taken_yet_outlives_the_next_round(server: ScriptedSmtpServer) -> None:
    store()
    sending = Sending(server.port)
    sending.breaker._clock = clock = Clock()  # stands still: a probe that was dropped is not made up for
    sending.breaker.failure("gone")
    clock.advance(1)
    for _ in range(3):
        assert sending.sender.step(0) == 0
    sending.start().run_until_settled()
    assert (len(server.accepted), sending.breaker.is_closed) == (1, True)
    sending.close()


@pytest.mark.fault(42)
def test_535_pauses_and_fails_no_mail(
    server: ScriptedSmtpServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending_module, "CONFIGURATION_HOLD_SECONDS", 0.3)
    server.script = Script(users={"ada": "right"})
    store(10)
    sending = start(connections=1, url=f"smtp://ada:wrong@127.0.0.1:{server.port}")
    sending.run_until(lambda: not sending.breaker.is_closed and not sending.held)
    assert untouched()
    assert sending.breaker.reason == "auth: 5.7.8"
    server.script = Script(users={"ada": "wrong"})
    sending.run_until_settled()
    assert (len(server.accepted), DeadLetter.objects.count()) == (10, 0)


@pytest.mark.fault(42)
def test_wrong_configuration_is_probed_every_15_seconds(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(users={"ada": "right"})
    store(3)
    sending = start(url=f"smtp://ada:wrong@127.0.0.1:{server.port}")
    sending.run_until(lambda: not sending.breaker.is_closed and not sending.held)
    assert 10 < sending.breaker.seconds_until_probe <= 15


@contextmanager
def database_away(*words: str, times: int) -> Iterator[list[str]]:
    """The next statements that hold all `words` lose their connection; yields those that did."""
    lost: list[str] = []

    def lose(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if len(lost) < times and all(word in sql for word in words):
            lost.append(sql)
            raise OperationalError(2013, "Lost connection during query")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(lose):
        yield lost


@pytest.mark.fault(39)
@pytest.mark.parametrize("words", [("UPDATE", "settled_at"), ("INSERT", "outbox_events")], ids=["row", "event"])
def test_a_250_is_written_as_soon_as_the_database_is_back(
    server: ScriptedSmtpServer, start: Start, words: tuple[str, ...]
) -> None:
    pk = store()[0]
    sending = start()
    failures: list[OperationalError] = []

    def is_sent() -> bool:
        try:
            sending.sender.step(0.05)
        except OperationalError as error:
            failures.append(error)
        return status(pk) == Status.SENT

    with database_away(*words, times=4) as lost:
        wait_until(is_sent, seconds=30)
    assert (len(failures), len(lost), len(server.received)) == (4, 4, 1)
    assert (state(pk).retry_count, state(pk).possible_duplicates, len(state(pk).attempts)) == (0, 0, 1)
    assert len(reports()) == 1
    assert not sending.held


def test_while_the_database_is_away_the_rounds_do_not_spin(server: ScriptedSmtpServer, start: Start) -> None:
    store()
    sending = start(polls=False)
    sending.sender._backoff.next_wait_seconds = lambda: 0.5  # type: ignore[method-assign]
    with database_away("UPDATE", "settled_at", times=1), pytest.raises(OperationalError):
        sending.run_until(lambda: False)
    assert len(server.accepted) == 1
    rounds = 0
    while sending.held:
        sending.sender.step(0.2)
        rounds += 1
    assert rounds <= 10


def test_a_mark_that_cannot_be_written_keeps_a_hold_mail_from_data(
    server: ScriptedSmtpServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OperationalError(2006, "Server has gone away")] * 2
    really_mark = type(SentEmail.objects.all()).mark

    def mark(rows: Any) -> int:
        if failures:
            raise failures.pop()
        return int(really_mark(rows))

    monkeypatch.setattr(type(SentEmail.objects.all()), "mark", mark)
    pk = store(on_uncertain="hold")[0]
    start().run_until_settled()
    assert (status(pk), len(server.received), failures) == (Status.SENT, 1, [])
    assert [made.commands.count("DATA") for made in server.connections if "DATA" in made.commands] == [1]


def test_a_defect_in_a_thread_ends_the_rounds(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def mark(_rows: Any) -> int:
        raise ProgrammingError(1146, "Table doesn't exist")

    monkeypatch.setattr(type(SentEmail.objects.all()), "mark", mark)
    store(on_uncertain="hold")
    sending = start(grace_seconds=0.2)
    with pytest.raises(DeliveryDefectError) as caught:
        sending.run_until(lambda: False)
    assert isinstance(caught.value.__cause__, ProgrammingError)
    mail = SentEmail.objects.get()
    assert (mail.lease_token != 0, mail.crashes) == (True, 1)  # what ended its worker counts, however the worker ends


def test_an_error_of_the_database_that_does_not_pass_ends_the_rounds(start: Start) -> None:
    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "settled_at" in sql and sql.startswith("UPDATE"):
            raise ProgrammingError(1054, "Unknown column")
        return execute(sql, params, many, context)

    store()
    sending = start()
    with connection.execute_wrapper(refuse), pytest.raises(ProgrammingError):
        sending.run_until(lambda: False)
