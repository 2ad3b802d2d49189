"""One connection to an SMTP server (RFC 5321) that always knows how far a mail got.

`smtplib.SMTP.getreply()` turns every OSError into SMTPServerDisconnected, so that a refused connection, which is
harmless, and a time-out after the final dot, where the mail may have arrived, look alike. Here each step sets its phase
before it touches the socket, and the exception carries it.
"""

import enum
import re
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Literal

from email_project.emails.message import RenderedMail
from email_project.emails.smtp_dialogue import CHUNK_BYTES, Dialogue, Digit, MalformedReplyError, Reply
from email_project.emails.smtp_server import SmtpServer
from shared_events.runtime.crash_points import CrashPoint, reach

__all__ = ["Cause", "Phase", "Reply", "SmtpConnection", "SmtpFault", "SmtpServer"]

QUIT_SECONDS = 1.0
EARLY_REFUSAL_SECONDS = 0.1

_DOT_AT_LINE_START = re.compile(rb"^\.", re.MULTILINE)

Cause = Literal[
    "timeout",
    "reset",
    "refused",
    "unreachable",
    "dns",
    "tls_handshake",
    "tls_certificate",
    "tls_not_offered",
    "auth_not_offered",
    "smtputf8_not_offered",
    "reply",
    "protocol",
]


class Phase(enum.StrEnum):
    CONNECT = "connect"
    BANNER = "banner"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"  # 354 is awaited: no byte of the content has left
    BODY = "body"  # the content is being sent
    REPLY = "reply"  # the final dot is sent, its answer is awaited


class SmtpFault(Exception):  # noqa: N818 - a fault is this design's word
    """A connection or a mail that did not get through.

    `reply` is the server's answer, None where there was none; `reused` says that the connection had carried an earlier
    mail. The text holds neither an address nor the server's words, so it may be logged.
    """

    def __init__(self, *, phase: Phase, cause: Cause, reply: Reply | None = None, reused: bool = False) -> None:
        super().__init__(f"SMTP {phase}: {reply.code if reply else cause}")
        self.phase = phase
        self.cause: Cause = cause
        self.reply = reply
        self.reused = reused


_CAUSES: tuple[tuple[type[Exception], Cause], ...] = (
    (MalformedReplyError, "protocol"),
    (TimeoutError, "timeout"),
    (socket.gaierror, "dns"),
    (ssl.SSLCertVerificationError, "tls_certificate"),
    (ConnectionRefusedError, "refused"),
    (ConnectionError, "reset"),
)


class SmtpConnection:
    """A connection to one server, used by one thread at a time; `phase` may be read by any.

    `sent` counts the mails accepted on this connection. It never repeats what may have arrived.
    """

    def __init__(self, server: SmtpServer) -> None:
        """Open nothing yet. ValueError if the server's `ca_file` cannot be used."""
        self.server = server
        self.phase = Phase.CONNECT
        self.sent = 0
        self._tls_context = None if server.security == "none" else server.tls_context()
        self._dialogue: Dialogue | None = None
        self._reused = False
        self._used_at = 0.0

    @property
    def is_open(self) -> bool:
        return self._dialogue is not None

    @property
    def idle_seconds(self) -> float:
        """How long it has been open and unused; 0 where it is not open."""
        return time.monotonic() - self._used_at if self._dialogue else 0.0

    def connect(self) -> None:
        """Open it (again), up to and including AUTH. SmtpFault; then it is not open.

        Blocks up to `timeout_seconds` for each step and each address of the host, the resolver's own time apart.
        """
        self._drop()
        self.sent = 0
        self._reused = False
        try:
            self._open()
        except (OSError, MalformedReplyError) as error:
            raise self._broken(error) from error
        except BaseException:
            self._drop()
            raise
        self._used_at = time.monotonic()

    def send(self, mail: RenderedMail, *, before_data: Callable[[], None]) -> Reply:
        """Send one mail and return the 2xx reply to its final dot; open the connection first where it is not open.

        `before_data` is called once the recipient is accepted, right before DATA. What it raises passes: the mail has
        then provably not left, and the connection stays usable. Everything else is an SmtpFault; after a refusal other
        than 421 the connection stays usable (`is_open`). A connection kept from an earlier mail that turns out dead at
        MAIL is opened again, once; nothing is repeated after that.

        Blocks up to `timeout_seconds` for each step, `reply_timeout_seconds` for the last reply (RFC 5321 4.5.3.2.6).
        """
        if self._dialogue is None or self._dialogue.has_unread:
            self.connect()
        try:
            self._begin(mail)
            reach(CrashPoint.RECIPIENT_ACCEPTED)
            try:
                before_data()
            except BaseException:
                self._reset()
                raise
            self._data()
            reach(CrashPoint.CONTENT_INVITED)
            return self._hand_over(mail.data)
        finally:
            self._reused = True
            self._used_at = time.monotonic()

    def close(self) -> None:
        """Say QUIT and close; wait a second at most, never raise."""
        if self._dialogue:
            self._dialogue.timeout_seconds = QUIT_SECONDS
            with suppress(OSError, MalformedReplyError):
                self._dialogue.ask("QUIT")
        self._drop()

    def _open(self) -> None:
        server = self.server
        self.phase = Phase.CONNECT
        channel = socket.create_connection((server.host, server.port), server.timeout_seconds)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hostname = server.local_hostname or _own_hostname()
        self._dialogue = dialogue = Dialogue(channel, hostname, server.timeout_seconds)
        if self._tls_context and server.security == "tls":
            dialogue.start_tls(self._tls_context, server.host)
        self.phase = Phase.BANNER
        self._expect(Digit.COMPLETION, dialogue.hear())
        self.phase = Phase.EHLO
        self._expect(Digit.COMPLETION, dialogue.hello())
        if self._tls_context and server.security == "starttls":
            self._start_tls(dialogue, self._tls_context)
        if server.username:
            self._authenticate(dialogue)

    def _start_tls(self, dialogue: Dialogue, context: ssl.SSLContext) -> None:
        self.phase = Phase.STARTTLS
        if not dialogue.has_extn("starttls"):
            raise self._fault("tls_not_offered")
        self._expect(Digit.COMPLETION, dialogue.ask("STARTTLS"))
        dialogue.start_tls(context, self.server.host)
        self.phase = Phase.EHLO  # again: what was offered in clear text counts no longer (RFC 3207 section 4.2)
        self._expect(Digit.COMPLETION, dialogue.hello())

    def _authenticate(self, dialogue: Dialogue) -> None:
        self.phase = Phase.AUTH
        offered = dialogue.esmtp_features.get("auth", "").upper().split()
        if "PLAIN" in offered:  # RFC 4616
            secret = f"\0{self.server.username}\0{self.server.password}"
            self._expect(Digit.COMPLETION, dialogue.ask(f"AUTH PLAIN {_base64(secret)}"))
        elif "LOGIN" in offered:
            self._expect(Digit.INTERMEDIATE, dialogue.ask("AUTH LOGIN"))
            self._expect(Digit.INTERMEDIATE, dialogue.ask(_base64(self.server.username)))
            self._expect(Digit.COMPLETION, dialogue.ask(_base64(self.server.password)))
        else:
            raise self._fault("auth_not_offered")

    def _begin(self, mail: RenderedMail) -> None:
        try:
            self._offer(mail)
        except SmtpFault as fault:
            died = fault.cause == "reset" or (fault.reply is not None and fault.reply.is_closing)
            if not (fault.reused and fault.phase is Phase.MAIL and died):
                raise
            self.connect()
            self._offer(mail)

    def _offer(self, mail: RenderedMail) -> None:
        """MAIL and RCPT, in one go where the server takes that (PIPELINING, RFC 2920)."""
        dialogue = self._established()
        self.phase = Phase.MAIL
        sender = f"MAIL FROM:<{mail.envelope_from}>{self._parameters(dialogue, mail)}"
        recipient = f"RCPT TO:<{mail.envelope_to}>"
        at_once = dialogue.has_extn("pipelining")
        try:
            dialogue.say(*((sender, recipient) if at_once else (sender,)))
            reply = dialogue.hear()
            if at_once and reply.is_refusal and not reply.is_closing:
                with suppress(OSError, MalformedReplyError):
                    dialogue.hear()  # RCPT has its answer, too
            self._expect(Digit.COMPLETION, reply)
            self.phase = Phase.RCPT
            self._expect(Digit.COMPLETION, dialogue.hear() if at_once else dialogue.ask(recipient))
        except (OSError, MalformedReplyError) as error:
            raise self._broken(error) from error

    def _parameters(self, dialogue: Dialogue, mail: RenderedMail) -> str:
        """What this server understands of SIZE (RFC 1870), 8BITMIME (6152) and SMTPUTF8 (6531)."""
        parameters = f" SIZE={len(mail.data)}" if dialogue.has_extn("size") else ""
        if not mail.data.isascii() and dialogue.has_extn("8bitmime"):
            parameters += " BODY=8BITMIME"
        if mail.needs_smtputf8:
            if not dialogue.has_extn("smtputf8"):
                raise self._fault("smtputf8_not_offered")
            parameters += " SMTPUTF8"
        return parameters

    def _data(self) -> None:
        dialogue = self._established()
        self.phase = Phase.DATA
        try:
            self._expect(Digit.INTERMEDIATE, dialogue.ask("DATA"))
        except (OSError, MalformedReplyError) as error:
            raise self._broken(error) from error

    def _hand_over(self, data: bytes) -> Reply:
        """Send the content. From here on the mail may have arrived, whatever fails, unless the server answers."""
        dialogue = self._established()
        content = memoryview(_with_final_dot(data))
        try:
            if dialogue.has_unread:
                raise MalformedReplyError
            self.phase = Phase.BODY
            for start in range(0, len(content), CHUNK_BYTES):
                dialogue.send(content[start : start + CHUNK_BYTES])
            self.phase = Phase.REPLY
            reach(CrashPoint.DOT_SENT)
            reply = self._expect(Digit.COMPLETION, dialogue.hear(self.server.reply_timeout_seconds))
        except (OSError, MalformedReplyError) as error:
            refusal = None if self.phase is Phase.REPLY else self._early_refusal(dialogue)
            raise self._broken(error, refusal) from error
        self.sent += 1
        reach(CrashPoint.MAIL_ACCEPTED)
        return reply

    def _early_refusal(self, dialogue: Dialogue) -> Reply | None:
        """What the server said before it hung up: without the final dot a refusal is certain."""
        with suppress(OSError, MalformedReplyError):
            reply = dialogue.hear(EARLY_REFUSAL_SECONDS)
            return reply if reply.is_refusal else None
        return None

    def _expect(self, wanted: Digit, reply: Reply) -> Reply:
        if reply.digit == wanted:
            return reply
        if reply.is_closing or not reply.is_refusal:
            self._drop()
        elif self.phase in (Phase.MAIL, Phase.RCPT, Phase.DATA):
            self._reset()
        # neither wanted nor a refusal: the two sides are out of step
        raise self._fault("reply" if reply.is_refusal else "protocol", reply)

    def _reset(self) -> None:
        """End the transaction; where that fails, the connection."""
        try:
            if self._established().ask("RSET").digit == Digit.COMPLETION:
                return
        except (OSError, MalformedReplyError):
            pass
        self._drop()

    def _established(self) -> Dialogue:
        if self._dialogue is None:
            raise RuntimeError("the SMTP connection was closed while it was in use")
        return self._dialogue

    def _broken(self, error: OSError | MalformedReplyError, refusal: Reply | None = None) -> SmtpFault:
        self._drop()
        return self._fault("reply" if refusal else _cause(error, self.phase), refusal)

    def _fault(self, cause: Cause, reply: Reply | None = None) -> SmtpFault:
        return SmtpFault(phase=self.phase, cause=cause, reply=reply, reused=self._reused)

    def _drop(self) -> None:
        dialogue, self._dialogue = self._dialogue, None
        if dialogue:
            with suppress(OSError):
                dialogue.close()


def _cause(error: OSError | MalformedReplyError, phase: Phase) -> Cause:
    for kind, cause in _CAUSES:
        if isinstance(error, kind):
            return cause
    if isinstance(error, ssl.SSLError) and phase in (Phase.CONNECT, Phase.STARTTLS):
        return "tls_handshake"
    return "unreachable" if phase is Phase.CONNECT else "reset"


def _with_final_dot(data: bytes) -> bytes:
    if data.startswith(b".") or b"\n." in data:
        data = _DOT_AT_LINE_START.sub(b"..", data)
    return data + (b".\r\n" if data.endswith(b"\r\n") else b"\r\n.\r\n")


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode("ascii")


@cache
def _own_hostname() -> str:
    """Return the name for EHLO: fully qualified, else an address literal (RFC 5321 4.1.3)."""
    name = socket.getfqdn()
    if "." in name:
        return name
    try:
        return f"[{socket.gethostbyname(socket.gethostname())}]"
    except OSError:
        return "[127.0.0.1]"
