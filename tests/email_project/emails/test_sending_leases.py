"""Leases while sending: renewed, lost, and shared by nobody."""

import threading
from collections import Counter
from collections.abc import Callable
from uuid import UUID

import pytest
from django.db import connection

from email_project.emails.delivery import Delivery
from email_project.emails.models import SentEmail
from email_project.emails.outcomes import Kind
from email_project.emails.settlement import settle
from shared_events.outbox.claim import in_seconds
from tests.email_project.factories import reports, result, store
from tests.email_project.senders import POLICY, Sending, state, status
from tests.smtp_servers import Script, ScriptedSmtpServer, Step

pytestmark = pytest.mark.django_db(transaction=True)
Status = SentEmail.Status
Start = Callable[..., Sending]
OTHER = 99


def take_over(pk: UUID) -> None:
    SentEmail.objects.filter(pk=pk).update(lease_token=OTHER, due_at=in_seconds(60))


def test_a_slow_mail_keeps_its_lease(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(steps={"reply": [Step(delay_seconds=2.5, times=1)]})
    pk = store()[0]
    sending = start(lease_seconds=0.9)
    sending.run_until(lambda: server.received)
    claims = set()
    while status(pk) != Status.SENT:
        sending.sender.step(0.05)
        claims.add(state(pk).crashes)
    assert claims == {1, 0}, "its lease ran out and it was claimed again"
    assert (state(pk).crashes, state(pk).possible_duplicates, len(server.received)) == (0, 0, 1)


@pytest.mark.fault(47)
def test_a_queued_mail_whose_lease_was_lost_is_not_begun(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(steps={"reply": [Step(delay_seconds=1.2, times=1)]})
    first = store()[0]
    sending = start(connections=1, lease_seconds=0.9)
    sending.run_until(lambda: server.received)
    queued = store()[0]
    sending.run_until(lambda: queued in sending.held)
    take_over(queued)
    sending.run_until(lambda: not sending.held)
    assert (status(first), status(queued), state(queued).lease_token) == (Status.SENT, Status.PROCESSING, OTHER)
    assert len(server.received) == 1


def test_a_hold_mail_that_another_worker_took_is_not_begun(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(steps={"rcpt": [Step(delay_seconds=0.5)]})
    pk = store(on_uncertain="hold")[0]
    sending = start(connections=1)
    sending.run_until(lambda: server.connections and "RCPT" in server.connections[0].commands)
    take_over(pk)
    sending.run_until(lambda: not sending.held)
    assert (status(pk), state(pk).lease_token, state(pk).data_started_at) == (Status.PROCESSING, OTHER, None)
    assert not server.received


@pytest.mark.fault(47)
def test_a_250_after_the_lease_was_lost_is_written_all_the_same(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(steps={"reply": [Step(delay_seconds=0.5)]})
    pk = store()[0]
    sending = start()
    sending.run_until(lambda: server.received)
    take_over(pk)
    sending.run_until(lambda: not sending.held)
    assert (status(pk), state(pk).lease_token, len(reports())) == (Status.SENT, 0, 1)


@pytest.mark.fault(47)
def test_a_refusal_after_the_lease_was_lost_is_not_written(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(steps={"reply": [Step(reply="550 5.7.1 Spam", delay_seconds=0.5)]})
    pk = store()[0]
    sending = start()
    sending.run_until(lambda: server.received)
    take_over(pk)
    sending.run_until(lambda: not sending.held)
    assert (status(pk), state(pk).lease_token, reports()) == (Status.PROCESSING, OTHER, [])


def test_a_mail_that_its_own_worker_claims_again_goes_on_once(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(steps={"reply": [Step(delay_seconds=0.6, times=1)]})
    pk = store()[0]
    sending = start()
    sending.run_until(lambda: server.received)
    SentEmail.objects.filter(pk=pk).update(due_at=in_seconds(-1))
    sending.run_until(lambda: state(pk).crashes == 2)
    sending.run_until_settled()
    assert (status(pk), state(pk).possible_duplicates, len(server.received)) == (Status.SENT, 0, 1)


def test_a_mail_claimed_again_goes_on_from_where_another_worker_left_it(
    server: ScriptedSmtpServer, start: Start
) -> None:
    server.script = Script(steps={"reply": [Step(delay_seconds=0.8, times=1)]})
    pk = store()[0]
    sending = start()
    sending.run_until(lambda: server.received)
    SentEmail.objects.filter(pk=pk).update(due_at=in_seconds(-1))
    other = Delivery.of_row(SentEmail.claim(batch=1, lease_seconds=60, token=OTHER)[0], leased_until=1e12)
    assert settle([result(other, Kind.RETRY)], OTHER, POLICY) == 0
    SentEmail.objects.filter(pk=pk).update(due_at=in_seconds(-1))
    sending.run_until_settled()
    assert (status(pk), state(pk).status_version, state(pk).retry_count) == (Status.SENT, 2, 1)
    assert [report.status_version for report in reports()] == [1, 2]
    assert [attempt["outcome"] for attempt in state(pk).attempts] == ["retry", "sent"]


@pytest.mark.fault(48)
def test_a_worker_holds_no_more_than_it_can_send_soon(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(steps={"reply": [Step(delay_seconds=60)]})
    store(200)
    sending = start(connections=2)
    for _ in range(20):
        sending.sender.step(0.02)
    assert len(sending.held) == 64
    assert SentEmail.objects.filter(lease_token=0).count() == 136
    assert sending.sender.room() == 0


def test_two_senders_over_one_table_send_each_mail_once(mariadb: None, server: ScriptedSmtpServer) -> None:
    ids = store(300)
    together = threading.Barrier(2, timeout=30)
    errors: list[BaseException] = []

    def work() -> None:
        sending = Sending(server.port, connections=3)
        try:
            sending.start()
            together.wait()
            sending.run_until_settled(60)
            sending.close()
        except BaseException as error:  # noqa: BLE001 (the test's own thread raises it)
            errors.append(error)
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(90)
    assert not errors
    assert Counter(mail.message_id for mail in server.received) == Counter(f"<{pk}@example.com>" for pk in ids)
    assert set(SentEmail.objects.values_list("status", "status_version", "possible_duplicates")) == {
        (Status.SENT, 1, 0)
    }
    assert len(reports()) == 300


@pytest.mark.fault(47)
def test_what_became_of_an_earlier_claim_does_not_release_the_lease_of_a_later_one() -> None:
    sender = Sending().sender
    pk = store()[0]
    earlier, later = (
        Delivery.of_row(SentEmail.claim(batch=1, lease_seconds=-1, token=sender.token)[0], leased_until=1e12)
        for _ in range(2)
    )
    SentEmail.objects.filter(pk=pk).update(due_at=in_seconds(60))
    sender._held[pk] = later
    sender._note(result(earlier, None))
    assert not sender._unsettled
    sender._note(result(later, None))
    assert list(sender._unsettled) == [pk]
