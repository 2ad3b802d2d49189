"""A server that comes back while thousands of mails are due: one probe, then no more than the pool takes."""

import time
from collections.abc import Callable

import pytest

from email_project.emails.models import SentEmail
from email_project.emails.sending import MICRO_BATCH
from tests.email_project.factories import store
from tests.email_project.senders import Sending
from tests.smtp_servers import Script, ScriptedSmtpServer, Step

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.fault(48)]
Start = Callable[..., Sending]
DUE = 2_000
CONNECTIONS = 8
AWAY = Script(steps={"banner": ["421 4.3.2 Away"]})


def claimed() -> int:
    return SentEmail.objects.exclude(lease_token=0).filter(due_at__isnull=False).count()


@pytest.fixture
def waiting(server: ScriptedSmtpServer, start: Start) -> Sending:
    """A sender whose circuit is open, with many mails due and none claimed."""
    server.script = AWAY
    store(DUE)
    sending = start(connections=CONNECTIONS, probe_seconds=1.0)
    sending.run_until(lambda: not sending.breaker.is_closed and not sending.held)
    return sending


def test_one_probe_finds_out_and_nothing_is_claimed_before_its_answer(
    server: ScriptedSmtpServer, waiting: Sending
) -> None:
    server.script = Script(steps={"banner": [Step(reply="220 back", delay_seconds=0.6, times=1)]})
    before = len(server.connections)
    waiting.run_until(lambda: len(server.connections) > before)
    answered_at = time.monotonic() + 0.5
    while time.monotonic() < answered_at:
        waiting.sender.step(0.02)
        assert (len(server.connections) - before, waiting.held, claimed()) == (1, set(), 0)
    waiting.run_until(lambda: waiting.held)
    assert waiting.breaker.is_closed


def test_after_the_probe_the_pool_bounds_claims_and_connections(server: ScriptedSmtpServer, waiting: Sending) -> None:
    server.script = Script()
    before = len(server.connections)
    most_held = most_open = 0

    def all_sent() -> bool:
        nonlocal most_held, most_open
        most_held = max(most_held, len(waiting.held))
        most_open = max(most_open, sum(not made.is_closed for made in server.connections[before:]))
        return len(server.accepted) == DUE and not waiting.held

    waiting.run_until(all_sent, seconds=90)
    assert most_held <= 2 * MICRO_BATCH
    assert most_open <= CONNECTIONS
    assert len(server.connections) - before <= CONNECTIONS
    assert len({mail.message_id for mail in server.accepted}) == DUE


def test_a_probe_that_fails_lets_nothing_through(server: ScriptedSmtpServer, waiting: Sending) -> None:
    before = len(server.connections)
    waiting.run_until(lambda: len(server.connections) >= before + 2)
    waiting.run_until(lambda: waiting.breaker.seconds_until_probe > 0)
    assert (claimed(), waiting.held, server.received) == (0, set(), [])
    assert not any(made.commands for made in server.connections[before:])
