"""Wrong configuration on real services: sending and publishing pause, `/health/ready` says why, and all goes on by itself when mended."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from tests.end_to_end.platform import Platform, wait_until
from tests.smtp_servers import Script, ScriptedSmtpServer

COUNT = 50
EVENTS = "notification-events-topic"
HEALTH = (
    "from django.test import Client; print(Client(headers={'host': '127.0.0.1'}).get('/health/ready').content.decode())"
)
NO_ATTEMPT = "status = 'PROCESSING' AND retry_count = 0 AND possible_duplicates = 0 AND attempts = '[]'"
WITHIN_SECONDS = 25
"""A configuration fault is probed every fifteen seconds."""


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedSmtpServer]:
    with ScriptedSmtpServer(Script(users={"notifyx": "wrong"})) as running:
        yield running
        running.reset_connections()


@pytest.fixture(scope="module")
def running(prepared: Platform, server: ScriptedSmtpServer) -> Iterator[Platform]:
    """All processes, which log in to `server` with the password `wrong`."""
    variables = {
        "EMAIL_URL": f"smtp://notifyx:wrong@127.0.0.1:{server.port}",
        "KAFKA_MESSAGE_TIMEOUT_SECONDS": "4",
        "OUTBOX_LEASE_SECONDS": "10",
    }
    with prepared.running(**variables):
        yield prepared


def open_circuits(platform: Platform, project: str) -> dict[str, str]:
    """What `/health/ready` of a service says its workers have paused, with the reasons."""
    shown: Any = json.loads(platform.manage(project, "shell", "-v", "0", "-c", HEALTH))
    assert shown["status"] == ("degraded" if shown["workers"] else "ok")
    return {f"{worker['command']} {worker['name']}": worker["reason"] for worker in shown["workers"]}


def wait_for_circuit(platform: Platform, project: str, name: str) -> str:
    wait_until(lambda: name in open_circuits(platform, project), WITHIN_SECONDS, f"{name} is open and said to be")
    return open_circuits(platform, project)[name]


def assert_said_once(platform: Platform, process: str) -> None:
    """Less than a minute has passed since it opened."""
    said = [line for line in platform.one(process).log.splitlines() if "circuit open" in line]
    assert len(said) == 1, said


def assert_all_goes_on(platform: Platform, mended: Callable[[], object], sent: int) -> None:
    mended()
    platform.wait_all_sent(sent, WITHIN_SECONDS)
    platform.assert_nothing_open()
    platform.assert_no_budget_was_spent()
    assert platform.count("notification", "notifications", "status = 'FAILED'") == 0
    assert platform.count("notification", "notifications", "possible_duplicates > 0") == 0
    platform.assert_all_live()


@pytest.mark.fault(42)
def test_a_refused_login_at_the_smtp_server_pauses_sending(running: Platform, server: ScriptedSmtpServer) -> None:
    server.script = Script(users={"notifyx": "right"})
    sent_before, ids = running.count("notification", "notifications"), running.post_batches(COUNT)
    wait_until(lambda: running.count("email", "sent_emails", NO_ATTEMPT) == COUNT, 15, "all are taken in")
    assert wait_for_circuit(running, "email_project", "consume_events smtp") == "auth: 5.7.8"
    assert running.count("email", "sent_emails", NO_ATTEMPT) == COUNT
    assert_said_once(running, "consume_events")

    def mended() -> None:
        server.script = Script(users={"notifyx": "wrong"})

    assert_all_goes_on(running, mended, sent_before + COUNT)
    assert {mail.message_id for mail in server.accepted} >= {f"<{key}@example.com>" for key in ids}


@pytest.mark.fault(19)
def test_an_unknown_topic_pauses_publishing_until_it_is_made(running: Platform, server: ScriptedSmtpServer) -> None:
    sent_before, mails_before = running.count("notification", "notifications"), len(server.accepted)
    admin = AdminClient({"bootstrap.servers": running.services.kafka.bootstrap_servers})
    admin.delete_topics([EVENTS])[EVENTS].result(10)
    running.post_batches(COUNT)
    reason = wait_for_circuit(running, "notification_project", "relay_outbox kafka")
    assert EVENTS in reason
    pending = "status = 'PENDING' AND retry_count = 0"
    assert running.count("notification", "outbox_events", pending) == COUNT
    assert running.count("notification", "dead_letters") == 0
    assert_said_once(running, "notification_relay_outbox")
    assert_all_goes_on(running, lambda: running.run("create_topics"), sent_before + COUNT)
    assert len(server.accepted) - mails_before == COUNT
