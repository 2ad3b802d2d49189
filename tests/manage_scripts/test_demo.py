"""The demo: its mailbox, its embedded Redis and Kafka as other processes meet them, and all of it as a process."""

import os
import signal
import smtplib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import psutil
import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition

from manage_scripts.demo_parts import services
from manage_scripts.demo_parts.interruption import Interruption
from manage_scripts.demo_parts.mailbox import Mailbox, MailServer
from manage_scripts.demo_parts.mailbox_page import MailboxPageServer
from manage_scripts.demo_parts.ports import PortInUseError, Reservation, take
from manage_scripts.demo_parts.processes import ProcessEndedError, Processes, end_with

ROOT = Path(__file__).resolve().parents[2]
ANY_PORTS = ("--port", "0", "--email-port", "0", "--mailbox-port", "0")


def wait_until(holds: Callable[[], object], *, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


# ---- the mailbox


@dataclass
class MailboxUnderTest:
    mailbox: Mailbox
    smtp_port: int
    page: MailboxPageServer

    def send(
        self, recipient: str, *, subject: str = "Hello", html: str = "", message_id: str = "<1@example.com>"
    ) -> None:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "NotifyX <notifyx@example.com>", recipient, subject
        message["Message-ID"] = message_id
        message.set_content("The text & more.")
        if html:
            message.add_alternative(html, subtype="html")
        with smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=5) as client:
            client.send_message(message)

    def open(self, path: str) -> tuple[str, dict[str, str]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.page.port}{path}", timeout=5) as response:
            return response.read().decode(), dict(response.headers)


@pytest.fixture
def under_test() -> Iterator[MailboxUnderTest]:
    mailbox = Mailbox()
    mail_server, page = MailServer(mailbox), MailboxPageServer(mailbox)
    page.start()
    yield MailboxUnderTest(mailbox, mail_server.start(), page)
    page.stop()
    mail_server.stop()


def test_mailbox_takes_a_mail_and_shows_its_parts(under_test: MailboxUnderTest) -> None:
    under_test.send("ada@example.com", subject="Grüße ✓", html="<b>bold</b>")
    (mail,) = under_test.mailbox.to("ada@example.com")
    assert (mail.subject, mail.message_id, mail.sender) == ("Grüße ✓", "<1@example.com>", "notifyx@example.com")
    assert (mail.body("plain"), mail.body("html")) == ("The text & more.\n", "<b>bold</b>\n")


def test_mailbox_refuses_a_refused_recipient_for_good(under_test: MailboxUnderTest) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refusal:
        under_test.send("refused@example.com")
    code, text = refusal.value.recipients["refused@example.com"]
    assert (code, text[:5]) == (550, b"5.1.1")
    assert not under_test.mailbox.mails()
    assert [one.recipient for one in under_test.mailbox.refusals()] == ["refused@example.com"]


def test_mailbox_puts_a_busy_recipient_off_twice_before_each_mail(under_test: MailboxUnderTest) -> None:
    for _ in range(2):
        for _ in range(2):
            with pytest.raises(smtplib.SMTPRecipientsRefused) as refusal:
                under_test.send("busy@example.com")
            assert refusal.value.recipients["busy@example.com"][0] == 451
        under_test.send("busy@example.com")
    assert len(under_test.mailbox.to("busy@example.com")) == 2


def test_mailbox_counts_the_copies_of_a_message_id(under_test: MailboxUnderTest) -> None:
    under_test.send("ada@example.com", message_id="<twice@example.com>")
    under_test.send("ada@example.com", message_id="<twice@example.com>")
    under_test.send("grace@example.com", message_id="<once@example.com>")
    assert under_test.mailbox.copies("<twice@example.com>") == 2
    assert under_test.mailbox.copies("<once@example.com>") == 1
    assert '<span class="badge many">2</span>' in under_test.open("/")[0]


def test_mailbox_page_escapes_what_strangers_write(under_test: MailboxUnderTest) -> None:
    attack = "<script>alert(1)</script>"
    under_test.send("ada@example.com", subject=attack, html=attack)
    for path in ("/", "/mails/1"):
        text, headers = under_test.open(path)
        assert "<script" not in text
        assert "&lt;script&gt;alert(1)" in text
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_mailbox_page_shows_html_where_it_can_neither_run_nor_ask(under_test: MailboxUnderTest) -> None:
    under_test.send("ada@example.com", html="<script>alert(1)</script>")
    assert '<iframe sandbox title="The mail\'s HTML" src="/mails/1/html">' in under_test.open("/mails/1")[0]
    policy = under_test.open("/mails/1/html")[1]["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "sandbox"} <= set(policy)
    assert not any(part.startswith("script-src") for part in policy)
    source, headers = under_test.open("/mails/1/source")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "Message-ID: <1@example.com>" in source


@pytest.mark.parametrize("path", ["/mails/9", "/mails/1/other", "/../etc/passwd", "/mails/99999999999999"])
def test_mailbox_page_answers_404_to_what_it_does_not_have(under_test: MailboxUnderTest, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as answer:
        under_test.open(path)
    answer.value.close()
    assert answer.value.code == 404


def test_mailbox_page_shows_a_mail_whose_headers_are_malformed(under_test: MailboxUnderTest) -> None:
    headers = (
        b"From: @<>,;:\r\nMessage-ID: <\r\nSubject: =?utf-8?b?a?= \xff\r\nContent-Type: text/plain; charset=nothing"
    )
    under_test.mailbox.take("a@example.com", ["b@example.com"], headers + b"\r\n\r\n\xe9")
    assert "@&lt;&gt;,;:" in under_test.open("/mails/1")[0]


# ---- Redis and Kafka, each in a process of its own


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(ROOT, tmp_path / "logs", Interruption())
    yield started
    started.stop()


def start_embedded(processes: Processes, *arguments: str) -> str:
    command = [sys.executable, "-m", "manage_scripts.demo_parts.embedded", *arguments]
    return processes.address(processes.start_server(arguments[0], command, services.embedded_environment()))


def test_embedded_redis_serves_what_the_services_use(processes: Processes) -> None:
    port = int(start_embedded(processes, "redis").partition(":")[2])
    with redis.Redis(port=port, socket_timeout=5) as client, redis.Redis(port=port, socket_timeout=5) as other:
        assert client.set("mark", "running", nx=True, ex=30)
        assert not other.set("mark", "running", nx=True, ex=30)
        assert other.ttl("mark") in range(25, 31)
        assert client.pipeline().incrby("count", 2).expire("count", 60).execute() == [2, True]
        assert other.blpop(["nothing"], timeout=0.1) is None
        client.rpush("wake", "1")
        assert other.blpop(["wake"], timeout=5) == (b"wake", b"1")
        with other.pubsub(ignore_subscribe_messages=True) as subscription:
            subscription.subscribe("hints")
            subscription.get_message(timeout=5)  # the subscription's own confirmation
            client.publish("hints", "due")
            assert (subscription.get_message(timeout=5) or {})["data"] == b"due"


def test_embedded_kafka_keeps_records_and_offsets_for_a_group(processes: Processes) -> None:
    bootstrap = start_embedded(processes, "kafka", "topic")
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all"})
    errors: list[object] = []
    for number in range(6):
        producer.produce("topic", key=str(number), value=str(number), on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(10) == 0
    assert errors == [None] * 6
    first = consume(bootstrap, count=6)
    assert sorted(first) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    producer.produce("topic", key="0", value="later")
    assert producer.flush(10) == 0
    assert consume(bootstrap, count=1) == [b"later"], "the group's offsets were not kept"


def consume(bootstrap: str, *, count: int) -> list[bytes]:
    """Read records as one group and commit them."""
    group = {"group.id": "g", "auto.offset.reset": "earliest", "enable.auto.commit": False, "session.timeout.ms": 2000}
    consumer = Consumer({"bootstrap.servers": bootstrap, **group})
    try:
        consumer.subscribe(["topic"])
        records: list[bytes] = []
        deadline = time.monotonic() + 20
        while len(records) < count and time.monotonic() < deadline:
            if (record := consumer.poll(0.2)) is not None and record.error() is None:
                records.append(record.value() or b"")
        consumer.commit(asynchronous=False)
        partitions = consumer.committed([TopicPartition("topic", number) for number in range(4)], timeout=5)
        assert any(partition.offset > 0 for partition in partitions)
        return records
    finally:
        consumer.close()


# ---- processes and ports


def test_processes_name_the_one_that_ended_and_show_its_log(processes: Processes) -> None:
    processes.start(
        "broken", [sys.executable, "-c", "raise SystemExit('no such thing')"], services.embedded_environment()
    )

    def has_ended() -> bool:
        try:
            processes.check()
        except ProcessEndedError as error:
            return "broken ended unexpectedly with code 1" in str(error) and "no such thing" in str(error)
        return False

    wait_until(has_ended)


def test_processes_kill_what_does_not_end_by_itself(processes: Processes, tmp_path: Path) -> None:
    marker = tmp_path / "started"
    deaf = (
        "import signal, sys, time; signal.signal(15, signal.SIG_IGN); open(sys.argv[1], 'w').close(); time.sleep(600)"
    )
    processes.start("deaf", [sys.executable, "-c", deaf, str(marker)], {"TMPDIR": str(tmp_path)})
    wait_until(marker.exists)
    began = time.monotonic()
    processes.stop()
    assert time.monotonic() - began < 4.5
    assert not marked(tmp_path)


def test_take_names_the_option_where_a_port_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"Port {taken} cannot be used .* --port"):
            take(taken, 8000, "--port", Reservation)
        reservation = take(None, taken, "--port", Reservation)
        assert reservation.port != taken
        reservation.close()


# ---- the demo as a process


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[Start]:
    """TMPDIR marks every process of this test's runs: the demo hands it on to all its children."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "manage_scripts/demo.py", *arguments]
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        started.append(
            subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
        return started[-1]

    yield start
    for demo in started:
        demo.kill()
        demo.communicate()


def marked(tmp_path: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == str(tmp_path) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # it has ended, or is another user's
            continue
    return found


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} was not printed:\n{seen}")


def test_demo_once_ends_every_sample_as_it_should_and_leaves_nothing_behind(start_demo: Start, tmp_path: Path) -> None:
    demo = start_demo("--once", *ANY_PORTS)
    printed, _ = demo.communicate(timeout=180)
    assert demo.returncode == 0, printed
    assert "All 10 ended as they should" in printed
    assert not marked(tmp_path)
    assert not list(tmp_path.iterdir())


def test_demo_ends_within_five_seconds_of_ctrl_c(start_demo: Start, tmp_path: Path) -> None:
    demo = start_demo(*ANY_PORTS)
    printed = read_until(demo, "Ctrl-C ends everything")
    assert "curl -i http://127.0.0.1:" in printed
    assert len(marked(tmp_path)) > len(services.WORKERS)
    demo.send_signal(signal.SIGINT)
    rest, _ = demo.communicate(timeout=5)
    assert (demo.returncode, rest) == (0, "")
    assert not marked(tmp_path)


def test_demo_interrupted_twice_while_it_starts_still_ends_everything(start_demo: Start, tmp_path: Path) -> None:
    demo = start_demo(*ANY_PORTS)
    read_until(demo, "in memory")
    demo.send_signal(signal.SIGINT)
    demo.send_signal(signal.SIGTERM)
    rest, _ = demo.communicate(timeout=5)
    assert (demo.returncode, rest.count("Traceback")) == (130, 0), rest
    assert not marked(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_a_child_that_is_just_being_started_when_the_demo_is_killed_ends() -> None:
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    Interruption().listen()  # a child inherits its handler until its own program is loaded
    try:
        child = subprocess.Popen(["sleep", "10"], preexec_fn=end_with(parent=-1))  # noqa: PLW1509 as the demo does
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    assert child.wait(timeout=20) == -signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_demo_takes_its_children_along_when_it_is_killed(start_demo: Start, tmp_path: Path) -> None:
    demo = start_demo("--folder", str(tmp_path / "run"), *ANY_PORTS)
    read_until(demo, "Tables (SQLite")
    wait_until(lambda: len(marked(tmp_path)) > len(services.WORKERS))
    demo.kill()
    psutil.wait_procs(marked(tmp_path), timeout=40)  # a worker whose Kafka has gone with it takes its time
    assert not marked(tmp_path)


def test_demo_says_in_one_sentence_that_a_port_is_in_use(start_demo: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        demo = start_demo("--once", "--port", str(taken))
        printed, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert (
        printed
        == f"Port {taken} cannot be used (Address already in use): give another one with --port, or leave that out.\n"
    )
    assert not marked(tmp_path)
