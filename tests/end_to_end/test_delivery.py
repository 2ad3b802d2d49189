"""Notifications from POST to their final state, through every process: sent, refused, retried, uncertain, scheduled, unreadable."""

import os
import random
import statistics
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer

from manage_scripts.raw_limits import measure_rows
from shared_events.contracts.events import DeadLetterRecorded, EmailNotificationCreated, decode
from shared_events.contracts.topics import EMAIL_DEAD_LETTERS, NOTIFICATION_EVENTS
from tests.end_to_end.platform import ROOT, Platform, free_port, wait_until
from tests.manage_scripts.compose_file import command_of
from tests.smtp_servers import ReceivedMail, Script, ScriptedSmtpServer, Step

SCRIPT = Script(
    recipients={
        "nobody@*": {"rcpt": ["550 5.1.1 No such user here"]},
        "busy@*": {"rcpt": [Step(reply="451 4.3.0 Mailbox busy", times=2)]},
        "silent-*": {"reply": [Step(delay_seconds=2, times=1)]},  # longer than SMTP_REPLY_TIMEOUT_SECONDS below
        "full@*": {"rcpt": ["452 4.2.2 Mailbox full"]},
        "slow@*": {"rcpt": [Step(delay_seconds=1.5)]},
    }
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """All processes, with a scripted server behind them."""

    platform: Platform
    server: ScriptedSmtpServer

    def post(self, recipient: str, **fields: Any) -> str:
        answer = self.platform.post(recipient=recipient, **fields)
        assert answer.status == 202, answer
        return str(answer.json()["id"])

    def received(self, notification_id: str) -> list[ReceivedMail]:
        """The copies that came with their final dot, in order."""
        return [mail for mail in self.server.received if mail.message_id == f"<{notification_id}@example.com>"]

    def row(self, table: str, columns: str, notification_id: str) -> tuple[Any, ...]:
        """A row of the e-mail service."""
        name = {"sent_emails": "id", "dead_letters": "notification_id"}[table]
        return self.platform.sql("email", f"SELECT {columns} FROM {table} WHERE {name} = %s", [notification_id])[0]

    def wait_until_published(self) -> None:
        due = "due_at IS NOT NULL"
        wait_until(lambda: not self.platform.count("email", "outbox_events", due), 15, "the e-mail outbox is published")

    def dead_letters(self) -> list[DeadLetterRecorded]:
        return [
            msgspec.json.decode(value, type=DeadLetterRecorded) for value in self.platform.records(EMAIL_DEAD_LETTERS)
        ]


@pytest.fixture(scope="class")
def delivery(prepared: Platform) -> Iterator[Delivery]:
    with (
        ScriptedSmtpServer(SCRIPT) as server,
        prepared.running(
            EMAIL_URL=f"smtp://127.0.0.1:{server.port}",
            EMAIL_RETRY_BASE_SECONDS="0.2",
            RETRY_POLL_SECONDS="0.1",
            SMTP_REPLY_TIMEOUT_SECONDS="1",
        ) as running,
    ):
        yield Delivery(running, server)


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


class TestOneMail:
    def test_a_refused_recipient_is_failed_with_the_words_of_the_server(self, delivery: Delivery) -> None:
        notification_id = delivery.post("nobody@example.com")
        shown = delivery.platform.wait_final(notification_id)
        assert (shown["status"], shown["attempts"], shown["possible_duplicates"]) == ("FAILED", 1, 0)
        assert shown["failure"] == {"class": "recipient", "code": "5.1.1", "detail": "5.1.1 No such user here"}
        assert delivery.received(notification_id) == []

    @pytest.mark.fault(44)
    def test_a_failed_mail_is_a_dead_letter_in_the_table_and_on_its_topic(self, delivery: Delivery) -> None:
        notification_id = delivery.post("nobody@example.com", subject="Kept whole")
        delivery.platform.wait_final(notification_id)
        assert delivery.row("dead_letters", "class, replayed_at", notification_id) == ("recipient", None)

        delivery.wait_until_published()
        (letter,) = [letter for letter in delivery.dead_letters() if str(letter.notification_id) == notification_id]
        assert (letter.letter_class, letter.cause) == ("recipient", "5.1.1 No such user here")
        original = decode(letter.original)
        assert isinstance(original, EmailNotificationCreated)
        assert (original.recipient, original.subject) == ("nobody@example.com", "Kept whole")

    def test_a_mail_deferred_twice_is_sent_at_the_third_attempt(self, delivery: Delivery) -> None:
        notification_id = delivery.post("busy@example.com")
        shown = delivery.platform.wait_final(notification_id)
        assert (shown["status"], shown["attempts"], shown["possible_duplicates"]) == ("SENT", 3, 0)
        assert delivery.row("sent_emails", "status, retry_count", notification_id) == ("SENT", 2)
        assert delivery.platform.count("email", "outbox_events", "retry_count > 0") == 0
        assert delivery.platform.count("notification", "outbox_events", "retry_count > 0") == 0
        assert len(delivery.received(notification_id)) == 1

    @pytest.mark.fault(38, 46)
    def test_an_unanswered_final_dot_is_sent_again_as_the_same_mail_and_said(self, delivery: Delivery) -> None:
        notification_id = delivery.post("silent-resend@example.com", on_uncertain="resend")
        shown = delivery.platform.wait_final(notification_id)
        assert (shown["status"], shown["attempts"], shown["possible_duplicates"]) == ("SENT", 2, 1)
        first, second = delivery.received(notification_id)
        assert second.message["X-NotifyX-Copy"] == "1"
        assert first.data == second.data.replace(b"X-NotifyX-Copy: 1\r\n", b"")
        assert delivery.row("sent_emails", "possible_duplicates, retry_count", notification_id) == (1, 0)

    @pytest.mark.fault(38)
    def test_an_unanswered_final_dot_is_held_where_the_client_asked_for_it(self, delivery: Delivery) -> None:
        notification_id = delivery.post("silent-hold@example.com", on_uncertain="hold")
        wait_until(
            lambda: delivery.platform.get(notification_id)["status"] == "UNCERTAIN", 15, "GET says that it is uncertain"
        )
        shown = delivery.platform.get(notification_id)
        assert (shown["final"], shown["attempts"], shown["possible_duplicates"]) == (False, 1, 0)
        assert shown["uncertain"]["phase"] == "reply"
        assert shown["uncertain"]["message_id"] == delivery.received(notification_id)[0].message_id
        assert shown["uncertain"]["host"] == "127.0.0.1"
        later = delivery.post("ada@example.com")
        assert delivery.platform.wait_final(later)["status"] == "SENT"
        assert len(delivery.received(notification_id)) == 1
        assert delivery.row("sent_emails", "status, due_at", notification_id) == ("UNCERTAIN", None)

        path = f"/api/v1/notifications/{notification_id}/resolve"
        resolved = delivery.platform.request(
            "POST", path, {"resolution": "delivered", "reason": "it is in the mailbox"}
        )
        assert resolved.status == 202
        assert delivery.platform.wait_final(notification_id)["status"] == "SENT"
        assert len(delivery.received(notification_id)) == 1

    def test_a_scheduled_mail_is_not_sent_before_its_time(self, delivery: Delivery) -> None:
        send_after = time.time() + 2
        notification_id = delivery.post("later@example.com", send_after=in_seconds(2))
        assert delivery.platform.get(notification_id)["status"] == "PENDING"
        assert delivery.platform.wait_final(notification_id)["status"] == "SENT"
        (mail,) = delivery.received(notification_id)
        assert mail.at >= send_after

    def test_a_mail_cancelled_before_its_time_is_never_sent(self, delivery: Delivery) -> None:
        cancelled = delivery.post("cancelled@example.com", send_after=in_seconds(1.5))
        sent = delivery.post("sent@example.com", send_after=in_seconds(1.5))
        for _ in range(2):
            answer = delivery.platform.request("POST", f"/api/v1/notifications/{cancelled}/cancel")
            assert (answer.status, answer.json()["status"]) == (200, "CANCELLED")
        assert delivery.platform.wait_final(sent)["status"] == "SENT"
        too_late = delivery.platform.request("POST", f"/api/v1/notifications/{sent}/cancel")
        assert (too_late.status, too_late.json()["code"]) == (409, "not-cancellable")
        shown = delivery.platform.get(cancelled)
        assert (shown["status"], shown["final"], shown["attempts"]) == ("CANCELLED", True, 0)
        assert delivery.received(cancelled) == []
        assert delivery.platform.count("email", "sent_emails", "recipient = 'cancelled@example.com'") == 0

    @pytest.mark.fault(49)
    @pytest.mark.parametrize("recipient", ["slow", "full"])
    def test_a_mail_past_its_deadline_is_failed_as_expired(self, delivery: Delivery, recipient: str) -> None:
        notification_id = delivery.post(f"{recipient}@example.com", send_before=in_seconds(1.2))
        shown = delivery.platform.wait_final(notification_id)
        assert (shown["status"], shown["failure"]["class"], shown["failure"]["code"]) == (
            "FAILED",
            "expired",
            "expired",
        )
        assert delivery.received(notification_id) == []

    def test_a_request_with_a_known_key_is_answered_again_and_makes_no_second_mail(self, delivery: Delivery) -> None:
        first, second = (
            delivery.platform.post(recipient="doubled@example.com", idempotency_key="doubled") for _ in range(2)
        )
        assert second.headers["idempotent-replayed"] == "true"
        assert (first.status, first.body) == (second.status, second.body)
        notification_id = first.json()["id"]
        assert delivery.platform.wait_final(notification_id)["status"] == "SENT"
        assert len([mail for mail in delivery.server.received if mail.envelope_to == ["doubled@example.com"]]) == 1

    @pytest.mark.fault(29)
    def test_an_unreadable_record_becomes_a_dead_letter_and_the_next_record_is_delivered(
        self, delivery: Delivery
    ) -> None:
        nonsense = f"no JSON \xff {uuid.uuid4()}".encode("latin-1")
        producer = Producer({"bootstrap.servers": delivery.platform.services.kafka.bootstrap_servers})
        partitions = producer.list_topics(NOTIFICATION_EVENTS, timeout=10).topics[NOTIFICATION_EVENTS].partitions
        for partition in partitions:  # whatever partition the next record comes to, it stands behind one of these
            producer.produce(NOTIFICATION_EVENTS, nonsense, partition=partition)
        assert producer.flush(10) == 0
        assert delivery.platform.wait_final(delivery.post("after@example.com"))["status"] == "SENT"
        rows = delivery.platform.sql(
            "email", "SELECT class, notification_id, source_topic FROM dead_letters WHERE original = %s", [nonsense]
        )
        assert rows == [("unreadable", None, NOTIFICATION_EVENTS)] * len(partitions)
        delivery.wait_until_published()
        letters = [letter for letter in delivery.dead_letters() if letter.original == nonsense]
        assert [letter.letter_class for letter in letters] == ["unreadable"] * len(partitions)


@pytest.fixture(scope="class")
def running(prepared: Platform) -> Iterator[Platform]:
    with prepared.running() as platform:
        yield platform


class TestMany:
    """Through Postfix's smtp-sink. Figures are printed, and belong to the bench; no time is asserted."""

    def test_singles_with_gaps_are_each_seen_as_sent(self, running: Platform) -> None:
        running.wait_final(running.post().json()["id"])  # the consumers have joined their groups
        gaps = random.Random(7)
        seconds = []
        for n in range(100):
            time.sleep(gaps.uniform(0, 0.06))
            began = time.perf_counter()
            notification_id = running.post(recipient=f"idle{n}@example.com").json()["id"]
            while running.get(notification_id)["status"] != "SENT":
                assert time.perf_counter() - began < 30
                time.sleep(0.003)
            seconds.append(time.perf_counter() - began)
        p50, p99 = statistics.median(seconds), statistics.quantiles(seconds, n=100)[98]
        print(f"idle latency, POST to SENT: p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms")  # noqa: T201

    @pytest.mark.parametrize("way", ["1,000 singles by 16 clients", "5,000 in batches of 500"])
    def test_each_of_many_is_sent_exactly_once(self, running: Platform, way: str) -> None:
        urls = running.services.databases()
        rows = measure_rows(urls.notification, urls.email)
        before, mails_before = running.count("notification", "notifications"), running.mails()
        began = time.perf_counter()
        ids = (
            running.post_many(1000, prefix=way[:1]) if "singles" in way else running.post_batches(5000, prefix=way[:1])
        )
        accepted = len(ids) / (time.perf_counter() - began)
        running.wait_all_sent(before + len(ids), 120)
        rate = len(ids) / (time.perf_counter() - began)
        said = f"accepted {accepted:.0f}/s, end to end {rate:.0f}/s = {rate / rows:.2f} of ROWS ({rows:.0f}/s)"
        print(f"{way}: {said}")  # noqa: T201
        new = running.mails() - mails_before
        assert new == dict.fromkeys((f"<{notification_id}@example.com>" for notification_id in ids), 1)
        running.assert_nothing_open()
        assert running.count("notification", "notifications", "possible_duplicates > 0") == 0
        assert list(running.logs('"level": "error"', "traceback")) == []


ALL = ("notification_api", "notification_relay_outbox", "consume_status", "reconcile_notifications")
ALL_EMAIL = ("email_api", "consume_events", "retry_emails", "email_relay_outbox")
SENDERS = ("consume_events", "retry_emails")
WRONG = (
    ("SECRET_KEY", "", ("notification_api", "email_api", "reconcile_notifications")),
    ("DATABASE_URL", "", (*ALL, *ALL_EMAIL)),
    ("DATABASE_URL", "postgres://127.0.0.1/n", ("consume_status", "email_api")),
    ("REDIS_URL", "", ("notification_api", "email_relay_outbox")),
    ("REDIS_URL", "127.0.0.1:6379", ("retry_emails",)),
    ("KAFKA_BOOTSTRAP_SERVERS", "", ("notification_relay_outbox", "consume_status", "consume_events")),
    ("KAFKA_SECURITY_PROTOCOL", "TLS", ("consume_events",)),
    ("KAFKA_SSL_CA", "/nowhere/ca.pem", ("notification_relay_outbox",)),
    ("EMAIL_URL", "", SENDERS),
    ("EMAIL_URL", "http://127.0.0.1:25", SENDERS),
    ("DEFAULT_FROM_EMAIL", "", SENDERS),
    ("DEFAULT_FROM_EMAIL", "nobody", SENDERS),
    ("OUTBOX_LEASE_SECONDS", "30", ("notification_relay_outbox", "email_relay_outbox", "email_api")),
    ("EMAIL_RETRY_BASE_SECONDS", "4000", SENDERS),
    ("OUTBOX_BATCH", "many", ("email_relay_outbox",)),
    ("RATE_LIMIT_CLIENT", "lots", ("notification_api",)),
    ("LOG_LEVEL", "LOUD", ("reconcile_notifications",)),
)


@pytest.mark.parametrize(("variable", "value", "names"), WRONG, ids=[f"{name}={value}" for name, value, _ in WRONG])
def test_a_wrong_variable_ends_each_process_at_its_start_with_one_sentence(
    prepared: Platform, variable: str, value: str, names: tuple[str, ...]
) -> None:
    prepared.overrides = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ends = dict(zip(names, pool.map(lambda name: _ended(prepared, name, variable, value), names), strict=True))
    for name, (code, said) in ends.items():
        assert code != 0, name
        assert "Traceback" not in said, (name, said)
        sentences = {line for line in said.splitlines() if line.startswith(("configuration:", "?:"))}
        assert len(sentences) == 1, (name, said)
        assert variable in sentences.pop()


def _ended(platform: Platform, name: str, variable: str, value: str) -> tuple[int, str]:
    """The exit code and the stderr of a process with `variable` set to `value`, unset for an empty one."""
    environment = platform.environment(name, **{variable: value})
    if not value:
        del environment[variable]
    command = command_of(name)
    if "--port" in command:
        command[command.index("--host") + 1] = "127.0.0.1"
        command[command.index("--port") + 1] = str(free_port())
        command[command.index("--workers") + 1] = "1"  # two that end in turn take granian longer to give up
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr
