"""The same behaviour against the scripted server, aiosmtpd and Postfix's smtp-sink."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from email_project.emails.message import RenderedMail
from email_project.emails.outcomes import Kind, classify
from email_project.emails.smtp import Phase, SmtpConnection, SmtpFault, SmtpServer
from tests.smtp_servers import Script, ScriptedSmtpServer, Step, read_record

DATA = b"From: a@example.com\r\nTo: ada@example.com\r\nSubject: Hi\r\n\r\n.\r\nHello\r\n..\r\n"
MAIL = RenderedMail("a@example.com", "ada@example.com", DATA, needs_smtputf8=False)
VERB = {Phase.MAIL: "MAIL", Phase.RCPT: "RCPT", Phase.DATA: "DATA", Phase.REPLY: "."}

# a server that refuses at one phase with one reply, or refuses nothing; yields its port
Starter = Callable[[Phase | None, str], AbstractContextManager[int]]


@contextmanager
def scripted(phase: Phase | None, answer: str) -> Iterator[int]:
    steps = {str(phase): [answer]} if phase else {}
    with ScriptedSmtpServer(Script(steps=steps)) as server:
        yield server.port


class RefusingHandler:
    def __init__(self, phase: Phase | None, answer: str) -> None:
        self.phase = phase
        self.answer = answer

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.phase is Phase.MAIL:
            return self.answer
        envelope.mail_from = address
        return "250 Ok"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.phase is Phase.RCPT:
            return self.answer
        envelope.rcpt_tos.append(address)
        return "250 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert envelope.content == DATA
        return self.answer if self.phase is Phase.REPLY else "250 Ok"


class DatalessSmtp(SMTP):
    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        await self.push(self.event_handler.answer)


class DatalessController(Controller):
    def factory(self) -> SMTP:
        return DatalessSmtp(self.handler)


@contextmanager
def aiosmtpd(phase: Phase | None, answer: str) -> Iterator[int]:
    handler = RefusingHandler(phase, answer)
    kind = DatalessController if phase is Phase.DATA else Controller
    controller = kind(handler, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@contextmanager
def smtp_sink(phase: Phase | None, answer: str) -> Iterator[int]:
    program = shutil.which("smtp-sink", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("smtp-sink is not installed: it comes with Debian's postfix package")
    port = free_port()
    refuse = (
        {"4": ["-r", VERB[phase], "-b", answer], "5": ["-f", VERB[phase], "-B", answer]}[answer[0]] if phase else []
    )
    with subprocess.Popen([program, "-u", "nobody", *refuse, f"127.0.0.1:{port}", "10"]) as process:
        try:
            wait_until_it_listens(port)
            yield port
        finally:
            process.terminate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until_it_listens(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"nothing listens on port {port}"
            time.sleep(0.02)
        else:
            return


@pytest.fixture(params=[scripted, aiosmtpd, smtp_sink])
def start(request: pytest.FixtureRequest) -> Starter:
    starter: Starter = request.param
    return starter


@contextmanager
def connected(port: int) -> Iterator[SmtpConnection]:
    connection = SmtpConnection(SmtpServer(host="127.0.0.1", port=port, timeout_seconds=5, reply_timeout_seconds=5))
    try:
        yield connection
    finally:
        connection.close()


def test_mails_are_accepted_one_after_another(start: Starter) -> None:
    with start(None, "") as port, connected(port) as connection:
        for sent in range(1, 4):
            assert connection.send(MAIL, before_data=lambda: None).code == 250
            assert connection.sent == sent


@pytest.mark.parametrize("phase", list(VERB))
@pytest.mark.parametrize(("answer", "kind"), [("451 4.3.0 Later", Kind.RETRY), ("550 5.7.1 Never", Kind.FAILED)])
def test_a_refusal_tells_phase_and_reply(start: Starter, phase: Phase, answer: str, kind: Kind) -> None:
    with start(phase, answer) as port, connected(port) as connection:
        for _ in range(2):  # the second time over the same connection
            with pytest.raises(SmtpFault) as caught:
                connection.send(MAIL, before_data=lambda: None)
            outcome = classify(caught.value)
            assert (outcome.kind, outcome.phase, outcome.basic_code) == (kind, phase, int(answer[:3]))
            assert outcome.enhanced_code == answer[4:9]
            assert connection.is_open


def test_what_fails_before_data_can_be_sent_again(start: Starter) -> None:
    with start(None, "") as port, connected(port) as connection:
        with pytest.raises(ZeroDivisionError):
            connection.send(MAIL, before_data=lambda: 1 / 0)  # type: ignore[arg-type]
        assert connection.send(MAIL, before_data=lambda: None).code == 250


# --- the scripted server as a process


@contextmanager
def scripted_process(*arguments: object) -> Iterator[int]:
    command = [sys.executable, "-m", "tests.smtp_servers", *map(str, arguments)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()
            assert process.wait(10) == 0


def test_a_process_obeys_a_changed_script_at_once_and_records_what_it_received(tmp_path: Path) -> None:
    script, record = tmp_path / "script.json", tmp_path / "mails.jsonl"
    Script(steps={"rcpt": ["550 5.1.1 No"]}).write(script)
    with scripted_process("--script", script, "--record", record) as port, connected(port) as connection:
        with pytest.raises(SmtpFault, match="SMTP rcpt: 550"):
            connection.send(MAIL, before_data=lambda: None)
        script.write_text(json.dumps({"recipients": {"ada@*": {"reply": [{"then": "close"}]}}}))
        with pytest.raises(SmtpFault, match="SMTP reply: reset"):
            connection.send(MAIL, before_data=lambda: None)
        Script().write(script)
        connection.send(MAIL, before_data=lambda: None)
    mails = read_record(record)
    assert [(mail.data, mail.acknowledged) for mail in mails] == [(DATA, False), (DATA, True)]
    assert mails[1].envelope_to == ["ada@example.com"]


def test_a_process_speaks_tls(tmp_path: Path) -> None:
    with scripted_process("--tls", "starttls", "--certificate", tmp_path) as port:
        fields: dict[str, Any] = {"security": "starttls", "ca_file": str(tmp_path / "certificate.pem")}
        connection = SmtpConnection(SmtpServer(host="127.0.0.1", port=port, **fields))
        connection.connect()
        assert connection.is_open
        connection.close()


def test_open_connections_can_be_reset_amid_a_delay() -> None:
    with ScriptedSmtpServer(Script(steps={"reply": [Step(delay_seconds=60)]})) as server:
        resetting = threading.Thread(target=reset_when_received, args=[server])
        resetting.start()
        with connected(server.port) as connection, pytest.raises(SmtpFault, match="SMTP reply: reset"):
            connection.send(MAIL, before_data=lambda: None)
        resetting.join()
        assert (len(server.received), len(server.accepted)) == (1, 0)


def reset_when_received(server: ScriptedSmtpServer) -> None:
    server.wait_until(lambda it: bool(it.received))
    server.reset_connections()
