"""A day without the SMTP server, with the clock moved: the sender's own threads, probe by probe, and what the day has cost."""

import time
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from django.db.models import F

from email_project.emails.intake import Intake
from email_project.emails.models import SentEmail
from shared_events.dead_letters.models import DeadLetter
from shared_events.runtime.breaker import CircuitBreaker
from tests.email_project.factories import created, record, reports
from tests.email_project.senders import Sending
from tests.shared_events.probes import Clock
from tests.smtp_servers import Script, ScriptedSmtpServer

pytestmark = pytest.mark.django_db(transaction=True)
Status = SentEmail.Status
Start = Callable[..., Sending]
HOURS = 24
HOUR_SECONDS = 3600
PROBE_SECONDS = 15  # a server that stays away is asked so often
STEP_SECONDS = 600
MAILS_AN_HOUR = 3


class Day:
    """A sender whose circuit goes by a clock of the test's, and the mails that intake takes in meanwhile."""

    def __init__(self, sending: Sending) -> None:
        self.sending = sending
        self.clock = Clock()
        self.breaker = CircuitBreaker("smtp", clock=self.clock)
        sending.sender._breaker = self.breaker
        self.intake = Intake(sending.sender, ring=sending.ring)
        self.ids: list[UUID] = []
        self.probes = 0

    def take_in(self) -> None:
        events = [created() for _ in range(MAILS_AN_HOUR)]
        self.intake.handle([record(event) for event in events])
        self.ids += [event.notification_id for event in events]

    def pass_an_hour(self) -> None:
        """Rounds of an hour, each with what it finds due; the rows grow older with the clock, by the only clock they know."""
        for _step in range(HOUR_SECONDS // STEP_SECONDS):
            self.clock.advance(STEP_SECONDS)
            step = timedelta(seconds=STEP_SECONDS)
            SentEmail.objects.filter(lease_token=0).update(due_at=F("due_at") - step)
            self.run_until_settled()
            self.probes += 1

    def run_until_settled(self) -> None:
        deadline = time.monotonic() + 30
        while not self.has_settled():
            assert time.monotonic() < deadline
            if self.breaker._probing:
                time.sleep(0.001)  # a thread is asking the server
            else:
                self.sending.sender.step(0.001)

    def has_settled(self) -> bool:
        """Whether the probe that was due has failed, and nothing is in anybody's hands."""
        is_open = self.breaker.seconds_until_probe > 0 and not self.breaker._probing
        return is_open and not self.sending.held

    def assert_nothing_is_spent(self) -> None:
        fields = ("status", "retry_count", "crashes", "possible_duplicates", "lease_token", "data_started_at")
        assert set(SentEmail.objects.values_list(*fields)) == {(Status.PROCESSING, 0, 0, 0, 0, None)}
        assert SentEmail.objects.filter(due_at__isnull=False).count() == len(self.ids)
        assert (reports(), DeadLetter.objects.count()) == ([], 0)


def assert_each_is_sent_once(day: Day, server: ScriptedSmtpServer) -> None:
    day.clock.advance(PROBE_SECONDS)
    SentEmail.objects.filter(lease_token=0).update(due_at=F("due_at") - timedelta(seconds=STEP_SECONDS))
    day.sending.run_until_settled()
    fields = ("status", "retry_count", "crashes", "possible_duplicates")
    assert set(SentEmail.objects.values_list(*fields)) == {(Status.SENT, 0, 0, 0)}
    assert sorted(mail.message_id for mail in server.accepted) == sorted(f"<{pk}@example.com>" for pk in day.ids)
    assert len(server.received) == len(day.ids)
    assert {type(report).__name__ for report in reports()} == {"EmailSent"}
    assert not DeadLetter.objects.exists()


@pytest.mark.fault(41)
@pytest.mark.parametrize(
    "script",
    [
        Script(listening=False),
        Script(steps={"banner": ["421 4.3.2 Shutting down"]}),
        Script(steps={"mail": ["421 4.3.2 Too busy"]}),
    ],
    ids=["nobody listens", "421 banner", "421 at MAIL"],
)
def test_a_day_without_the_server_costs_no_mail_anything_and_all_go_out_when_it_is_back(
    server: ScriptedSmtpServer, start: Start, script: Script
) -> None:
    server.script = script
    server.wait_until(lambda running: running.is_listening is script.listening)
    day = Day(start(connections=2))
    for _hour in range(HOURS):
        day.take_in()
        day.pass_an_hour()
        day.assert_nothing_is_spent()
    assert day.probes == HOURS * HOUR_SECONDS // STEP_SECONDS
    server.script = Script()
    server.wait_until(lambda running: running.is_listening)
    assert_each_is_sent_once(day, server)


@pytest.mark.fault(41)
def test_senders_that_are_started_anew_all_day_cost_no_mail_anything(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(listening=False)
    server.wait_until(lambda running: not running.is_listening)
    day = Day(start(connections=2))
    day.take_in()
    for _hour in range(HOURS):
        day.run_until_settled()
        day.sending.close()
        day.assert_nothing_is_spent()
        restarted = Day(start(connections=2))  # a new process, which knows of no outage
        restarted.ids = day.ids
        day = restarted
    server.script = Script()
    server.wait_until(lambda running: running.is_listening)
    assert_each_is_sent_once(day, server)
