"""The connection against the scripted server: phases, causes, what stays usable, what is never repeated."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from email_project.emails.message import RenderedMail
from email_project.emails.smtp import Cause, Phase, Reply, SmtpConnection, SmtpFault, SmtpServer
from tests.smtp_servers import Certificate, Script, ScriptedSmtpServer, Step

DATA = b"From: a@example.com\r\nTo: ada@example.com\r\nSubject: Hi\r\n\r\nHello\r\n"
MAIL = RenderedMail("a@example.com", "ada@example.com", DATA, needs_smtputf8=False)
RESET = Step(then="reset")
CLOSE = Step(then="close")
NEVER = Step(delay_seconds=60)


@pytest.fixture
def server() -> Iterator[ScriptedSmtpServer]:
    with ScriptedSmtpServer() as running:
        yield running


def settings_of(server: ScriptedSmtpServer, **fields: object) -> SmtpServer:
    quick = {"timeout_seconds": 5.0, "reply_timeout_seconds": 5.0, "local_hostname": "client.test"}
    return SmtpServer.from_url(f"smtp://127.0.0.1:{server.port}", **quick | fields)


@pytest.fixture
def connection(server: ScriptedSmtpServer) -> Iterator[SmtpConnection]:
    made = SmtpConnection(settings_of(server))
    yield made
    made.close()


def send(connection: SmtpConnection, mail: RenderedMail = MAIL) -> Reply:
    return connection.send(mail, before_data=lambda: None)


def fault_of(connection: SmtpConnection, mail: RenderedMail = MAIL) -> SmtpFault:
    with pytest.raises(SmtpFault) as caught:
        send(connection, mail)
    return caught.value


def test_two_mails_share_one_connection(server: ScriptedSmtpServer, connection: SmtpConnection) -> None:
    assert send(connection) == Reply(250, "2.0.0 Ok: queued")
    send(connection)
    assert [mail.data for mail in server.accepted] == [DATA, DATA]
    assert (len(server.connections), connection.sent) == (1, 2)


def test_idle_time_counts_from_the_last_word(server: ScriptedSmtpServer, connection: SmtpConnection) -> None:
    assert connection.idle_seconds == 0
    connection.connect()
    first = connection.idle_seconds
    assert 0 <= first <= connection.idle_seconds < 5


def test_lines_beginning_with_a_dot_arrive_unchanged(server: ScriptedSmtpServer, connection: SmtpConnection) -> None:
    data = b".first\r\n..\r\n.\r\nmiddle.\r\n.last"
    send(connection, RenderedMail("a@example.com", "ada@example.com", data, needs_smtputf8=False))
    assert server.accepted[0].data == data + b"\r\n"


def test_before_data_is_called_once_the_recipient_is_accepted_and_before_data(
    server: ScriptedSmtpServer, connection: SmtpConnection
) -> None:
    said: list[list[str]] = []
    connection.send(MAIL, before_data=lambda: said.append(list(server.connections[0].commands)))
    assert said == [["EHLO", "MAIL", "RCPT"]]


def test_an_exception_before_data_leaves_the_connection_usable(
    server: ScriptedSmtpServer, connection: SmtpConnection
) -> None:
    def refuse() -> None:
        raise LookupError("the lease is lost")

    with pytest.raises(LookupError):
        connection.send(MAIL, before_data=refuse)
    assert connection.is_open
    send(connection)
    assert server.connections[0].commands == ["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA"]
    assert len(server.received) == 1


@pytest.mark.fault(38)
@pytest.mark.parametrize(
    ("phase", "step", "cause"),
    [
        *((phase, RESET, "reset") for phase in ("ehlo", "mail", "rcpt", "data", "reply")),
        *((phase, CLOSE, "reset") for phase in ("banner", "ehlo", "mail", "rcpt", "data", "reply")),
        *((phase, NEVER, "timeout") for phase in ("banner", "ehlo", "mail", "rcpt", "data", "reply")),
        *((phase, "what?", "protocol") for phase in ("banner", "ehlo", "mail", "rcpt", "data", "reply")),
        *((phase, "421 4.3.2 Closing", "reply") for phase in ("banner", "ehlo", "mail", "rcpt", "data", "reply")),
    ],
)
def test_a_connection_that_breaks_tells_the_phase_and_is_closed(
    server: ScriptedSmtpServer, phase: str, step: Step | str, cause: Cause
) -> None:
    server.script = Script(steps={phase: [step]})
    seconds = 0.5 if step is NEVER else 5.0
    connection = SmtpConnection(settings_of(server, timeout_seconds=seconds, reply_timeout_seconds=seconds))
    fault = fault_of(connection)
    assert (fault.phase, fault.cause, fault.reused) == (phase, cause, False)
    assert (fault.reply is None) == (cause != "reply")
    assert not connection.is_open
    assert len(server.connections) == 1


def test_a_connection_reset_at_once_broke_before_the_session(server: ScriptedSmtpServer) -> None:
    server.script = Script(steps={"banner": [RESET]})
    fault = fault_of(SmtpConnection(settings_of(server)))
    assert fault.phase in (Phase.CONNECT, Phase.BANNER)  # the kernel may notice before connect returns
    assert (fault.cause, fault.reply) == ("reset", None)


@pytest.mark.fault(38)
def test_only_the_last_reply_has_the_long_limit(server: ScriptedSmtpServer) -> None:
    server.script = Script(steps={"reply": [Step(delay_seconds=1.0)], "mail": [Step(times=1), NEVER]})
    connection = SmtpConnection(settings_of(server, timeout_seconds=0.5))
    send(connection)
    fault = fault_of(connection)
    assert (fault.phase, fault.cause, fault.reused) == (Phase.MAIL, "timeout", True)


def test_a_dripping_reply_meets_one_deadline(server: ScriptedSmtpServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def drip() -> None:
            with listener.accept()[0] as channel:
                while not stop.wait(0.05):
                    channel.sendall(b"220-x\r\n")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            port = listener.getsockname()[1]
            fault = fault_of(SmtpConnection(SmtpServer(host="127.0.0.1", port=port, timeout_seconds=0.3)))
        finally:
            stop.set()
            dripping.join()
    assert (fault.phase, fault.cause) == (Phase.BANNER, "timeout")


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
@pytest.mark.parametrize("phase", ["mail", "rcpt", "data", "reply"])
@pytest.mark.parametrize("answer", ["451 4.3.0 Later", "550 5.7.1 Never"])
def test_a_refusal_leaves_the_connection_usable(
    server: ScriptedSmtpServer, connection: SmtpConnection, phase: str, answer: str, extensions: tuple[str, ...]
) -> None:
    server.script = Script(steps={phase: [Step(reply=answer, times=1)]}, extensions=extensions)
    fault = fault_of(connection)
    assert (fault.phase, fault.cause) == (phase, "reply")
    assert fault.reply == Reply(int(answer[:3]), answer[4:])
    assert connection.is_open
    assert connection.sent == 0
    send(connection)
    assert (len(server.connections), len(server.accepted)) == (1, 1)


def test_a_reply_without_end_is_a_protocol_fault(server: ScriptedSmtpServer, connection: SmtpConnection) -> None:
    server.script = Script(steps={"rcpt": ["250 " + "x" * 2_000_000]})
    fault = fault_of(connection)
    assert (fault.phase, fault.cause) == (Phase.RCPT, "protocol")


@pytest.mark.fault(12)
def test_a_line_break_in_an_address_never_becomes_a_command(
    server: ScriptedSmtpServer, connection: SmtpConnection
) -> None:
    with pytest.raises(ValueError, match="line break"):
        send(connection, RenderedMail("a@example.com", "ada@example.com>\r\nDATA", DATA, needs_smtputf8=False))
    assert server.connections[0].commands == ["EHLO"]


def test_a_failed_reset_closes_the_connection(server: ScriptedSmtpServer, connection: SmtpConnection) -> None:
    server.script = Script(steps={"rcpt": [Step(reply="550 5.1.1 No", times=1)], "rset": [CLOSE]})
    assert fault_of(connection).reply == Reply(550, "5.1.1 No")
    assert not connection.is_open


@pytest.mark.fault(41)
@pytest.mark.parametrize("step", [RESET, CLOSE, Step(reply="421 4.4.2 Idle too long", then="close")])
def test_a_kept_connection_that_is_dead_at_mail_is_opened_again_once(
    server: ScriptedSmtpServer, connection: SmtpConnection, step: Step
) -> None:
    send(connection)
    server.script = Script(steps={"mail": [Step(reply=step.reply, then=step.then, times=1)]})
    send(connection)
    assert (len(server.connections), len(server.received), connection.sent) == (2, 2, 1)


def test_a_kept_connection_is_opened_again_no_more_than_once(
    server: ScriptedSmtpServer, connection: SmtpConnection
) -> None:
    send(connection)
    server.script = Script(steps={"mail": [RESET]})
    fault = fault_of(connection)
    assert (fault.phase, fault.reused, len(server.connections)) == (Phase.MAIL, False, 2)


@pytest.mark.fault(38, 41)
@pytest.mark.parametrize("phase", ["rcpt", "data", "reply"])
def test_a_kept_connection_that_dies_later_is_not_opened_again(
    server: ScriptedSmtpServer, connection: SmtpConnection, phase: str
) -> None:
    send(connection)
    server.script = Script(steps={phase: [RESET]})
    fault = fault_of(connection)
    assert (fault.phase, fault.reused, len(server.connections)) == (phase, True, 1)


def test_a_word_too_many_is_never_taken_for_the_last_reply(
    server: ScriptedSmtpServer, connection: SmtpConnection
) -> None:
    server.script = Script(steps={"data": ["354 Go on\r\n250 2.0.0 Ok: not yours"]})
    fault = fault_of(connection)
    assert (fault.phase, fault.cause) == (Phase.DATA, "protocol")
    assert server.received == []


def test_a_word_too_many_after_a_mail_renews_the_connection(
    server: ScriptedSmtpServer, connection: SmtpConnection
) -> None:
    server.script = Script(steps={"reply": ["250 2.0.0 Ok\r\n421 4.7.0 Enough for this connection"]})
    send(connection)
    send(connection)
    assert (len(server.connections), len(server.accepted)) == (2, 2)


@pytest.mark.parametrize(("phase", "answer"), [("data", "250 Ok"), ("reply", "354 Go on"), ("mail", "334 ")])
def test_an_answer_of_the_wrong_kind_is_a_protocol_fault(
    server: ScriptedSmtpServer, connection: SmtpConnection, phase: str, answer: str
) -> None:
    server.script = Script(steps={phase: [answer]})
    fault = fault_of(connection)
    assert (fault.phase, fault.cause) == (phase, "protocol")
    assert not connection.is_open


def test_large_content_cut_off_is_a_fault_of_the_body(server: ScriptedSmtpServer, connection: SmtpConnection) -> None:
    server.script = Script(steps={"body": [RESET]})
    fault = fault_of(connection, RenderedMail("a@example.com", "ada@example.com", DATA * 200_000, needs_smtputf8=False))
    assert (fault.phase, fault.cause, fault.reply) == (Phase.BODY, "reset", None)


def test_a_refusal_amid_the_content_is_read_though_the_server_hung_up(
    server: ScriptedSmtpServer, connection: SmtpConnection
) -> None:
    server.script = Script(steps={"body": [Step(reply="552 5.3.4 Too large", delay_seconds=0.1, then="close")]})
    fault = fault_of(connection, RenderedMail("a@example.com", "ada@example.com", DATA * 200_000, needs_smtputf8=False))
    assert (fault.phase, fault.reply) == (Phase.BODY, Reply(552, "5.3.4 Too large"))


def test_a_reply_of_several_lines_becomes_one(server: ScriptedSmtpServer, connection: SmtpConnection) -> None:
    server.script = Script(steps={"rcpt": ["550-5.1.1 No such\tuser\r\n550-5.1.1 here:\r\n550 5.1.1 \xe9" + "x" * 900]})
    reply = fault_of(connection).reply
    assert reply
    assert reply.text.startswith("5.1.1 No such user here: \xe9xxx")
    assert len(reply.text) == 500


def test_a_refused_connection_and_an_unknown_host_are_told_apart(server: ScriptedSmtpServer) -> None:
    server.script = Script(listening=False)
    server.wait_until(lambda it: not it.is_listening)
    fault = fault_of(SmtpConnection(settings_of(server)))
    assert (fault.phase, fault.cause) == (Phase.CONNECT, "refused")
    fault = fault_of(SmtpConnection(SmtpServer(host="mail.invalid", port=25)))
    assert (fault.phase, fault.cause) == (Phase.CONNECT, "dns")


@pytest.mark.fault(40)
def test_close_says_quit_and_survives_every_answer(server: ScriptedSmtpServer, connection: SmtpConnection) -> None:
    for step in (Step(), RESET, Step(reply="500 No"), Step(reply="x")):
        server.script = Script(steps={"quit": [step]})
        send(connection)
        connection.close()
        assert not connection.is_open
        assert server.connections[-1].commands[-1] == "QUIT"
    connection.close()


# --- what is offered


def test_size_is_declared_where_it_is_offered(server: ScriptedSmtpServer, connection: SmtpConnection) -> None:
    send(connection)
    assert server.connections[0].parameters == [f"SIZE={len(DATA)}"]
    connection.close()
    server.script = Script(extensions=())
    send(connection)
    assert server.connections[1].parameters == [""]


@pytest.mark.fault(12)
def test_a_mail_in_utf8_needs_the_server_to_offer_it(server: ScriptedSmtpServer, connection: SmtpConnection) -> None:
    mail = RenderedMail("a@example.com", "jürgen@example.com", "To: jürgen@example.com\r\n\r\n".encode(), True)
    send(connection, mail)
    assert server.accepted[0].envelope_to == ["jürgen@example.com"]
    assert server.connections[0].parameters == ["SIZE=27 BODY=8BITMIME SMTPUTF8"]
    connection.close()
    server.script = Script(extensions=("8BITMIME",))
    fault = fault_of(connection, mail)
    assert (fault.phase, fault.cause, fault.reply) == (Phase.MAIL, "smtputf8_not_offered", None)
    assert connection.is_open
    assert server.connections[1].commands == ["EHLO"]


@pytest.mark.parametrize("mechanisms", ["PLAIN LOGIN", "LOGIN", "CRAM-MD5 LOGIN PLAIN"])
def test_logging_in(server: ScriptedSmtpServer, mechanisms: str) -> None:
    server.script = Script(users={"ada": "pässword"}, mechanisms=mechanisms)
    connection = SmtpConnection(settings_of(server, username="ada", password="pässword"))
    send(connection)
    connection.close()
    assert server.connections[0].user == "ada"


@pytest.mark.parametrize("mechanisms", ["PLAIN", "LOGIN"])
def test_a_wrong_password_is_a_fault_of_auth(server: ScriptedSmtpServer, mechanisms: str) -> None:
    server.script = Script(users={"ada": "right"}, mechanisms=mechanisms)
    fault = fault_of(SmtpConnection(settings_of(server, username="ada", password="wrong")))
    assert (fault.phase, fault.reply) == (Phase.AUTH, Reply(535, "5.7.8 Authentication failed"))


def test_a_server_without_a_known_mechanism_offers_no_auth(server: ScriptedSmtpServer) -> None:
    server.script = Script(users={"ada": "right"}, mechanisms="GSSAPI")
    connection = SmtpConnection(settings_of(server, username="ada", password="right"))
    fault = fault_of(connection)
    assert (fault.phase, fault.cause, connection.is_open) == (Phase.AUTH, "auth_not_offered", False)


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.make(tmp_path_factory.mktemp("certificate"))


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_travels_encrypted(certificate: Certificate, security: str) -> None:
    script = Script(users={"ada": "secret"})
    with ScriptedSmtpServer(script, tls=security, certificate=certificate) as server:  # type: ignore[arg-type]
        settings = settings_of(
            server, security=security, ca_file=str(certificate.certificate_path), username="ada", password="secret"
        )
        connection = SmtpConnection(settings)
        send(connection)
        connection.close()
        assert server.connections[0].is_encrypted
        assert server.connections[0].commands.count("EHLO") == (2 if security == "starttls" else 1)
        assert [mail.data for mail in server.accepted] == [DATA]


@pytest.mark.parametrize(("security", "phase"), [("starttls", Phase.STARTTLS), ("tls", Phase.CONNECT)])
def test_an_untrusted_certificate_is_refused(certificate: Certificate, security: str, phase: Phase) -> None:
    with ScriptedSmtpServer(tls=security, certificate=certificate) as server:  # type: ignore[arg-type]
        fault = fault_of(SmtpConnection(settings_of(server, security=security)))
        assert (fault.phase, fault.cause) == (phase, "tls_certificate")


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    other = Certificate.make(tmp_path, host="other.test", address="127.0.0.2")
    with ScriptedSmtpServer(tls="tls", certificate=other) as server:
        fault = fault_of(SmtpConnection(settings_of(server, security="tls", ca_file=str(other.certificate_path))))
        assert fault.cause == "tls_certificate"


def test_a_server_that_offers_no_starttls_gets_no_mail(server: ScriptedSmtpServer) -> None:
    fault = fault_of(SmtpConnection(settings_of(server, security="starttls")))
    assert (fault.phase, fault.cause) == (Phase.STARTTLS, "tls_not_offered")
    assert server.connections[0].commands == ["EHLO"]


def test_plain_text_slipped_in_before_the_handshake_is_refused(certificate: Certificate) -> None:
    script = Script(steps={"starttls": ["220 Go on\r\n250-evil\r\n250 AUTH PLAIN"]})
    with ScriptedSmtpServer(script, tls="starttls", certificate=certificate) as server:
        fault = fault_of(SmtpConnection(settings_of(server, security="starttls")))
        assert (fault.phase, fault.cause) == (Phase.STARTTLS, "protocol")


def test_a_refused_starttls_is_a_reply(certificate: Certificate) -> None:
    script = Script(steps={"starttls": ["454 4.7.0 TLS not available"]})
    with ScriptedSmtpServer(script, tls="starttls", certificate=certificate) as server:
        fault = fault_of(SmtpConnection(settings_of(server, security="starttls")))
        assert (fault.phase, fault.reply) == (Phase.STARTTLS, Reply(454, "4.7.0 TLS not available"))


def test_tls_to_a_port_without_tls_is_a_failed_handshake(server: ScriptedSmtpServer) -> None:
    fault = fault_of(SmtpConnection(settings_of(server, security="tls")))
    assert (fault.phase, fault.cause) == (Phase.CONNECT, "tls_handshake")
