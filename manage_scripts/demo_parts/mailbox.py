"""The demo's mail server: takes every mail and delivers none.

It refuses `refused@…` with 550 5.1.1, and answers `busy@…` with 451 4.3.0 twice before each mail that it takes.
"""

import asyncio
import threading
from collections import Counter, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message

from aiosmtpd.smtp import SMTP, Envelope, Session

BUSY_ANSWERS = 2
MAILS_KEPT = 1000
REFUSALS_KEPT = 50


@dataclass(frozen=True, kw_only=True)
class Mail:
    """One mail as it arrived; `number` counts from 1."""

    number: int
    received_at: datetime
    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    message: Message

    @property
    def message_id(self) -> str:
        return self.header("Message-ID")

    @property
    def subject(self) -> str:
        return self.header("Subject")

    def header(self, name: str) -> str:
        """The first header of this name, decoded; empty where there is none."""
        return next((value for found, value in self.headers() if found.lower() == name.lower()), "")

    def headers(self) -> list[tuple[str, str]]:
        return [(name, decoded(value)) for name, value in self.message.raw_items()]

    def body(self, subtype: str) -> str | None:
        """The first part of type text/`subtype`, None where there is none; what cannot be decoded is replaced."""
        for part in self.message.walk():
            if part.get_content_type() == f"text/{subtype}" and part.get_content_disposition() != "attachment":
                return text_of(part)
        return None


def text_of(part: Message) -> str:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    try:
        text = content.decode(part.get_content_charset("utf-8"), "replace")
    except (LookupError, ValueError):  # a character set nobody knows
        text = content.decode("utf-8", "replace")
    return text.replace("\r\n", "\n")


def decoded(raw_value: str) -> str:
    """A header's text on one line. The standard library's newer header classes raise where a header is malformed."""
    value = " ".join(raw_value.encode("utf-8", "surrogateescape").decode("utf-8", "replace").split())
    try:
        return str(make_header(decode_header(value)))
    except (HeaderParseError, LookupError, ValueError):
        return value


@dataclass(frozen=True, kw_only=True)
class Refusal:
    refused_at: datetime
    recipient: str
    reply: str


class Mailbox:
    """What arrived, newest first, at most MAILS_KEPT; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mails: deque[Mail] = deque(maxlen=MAILS_KEPT)
        self._refusals: deque[Refusal] = deque(maxlen=REFUSALS_KEPT)
        self._copies: Counter[str] = Counter()
        self._arrived = 0

    def take(self, sender: str, recipients: list[str], raw: bytes) -> None:
        with self._lock:
            self._arrived += 1
            mail = Mail(
                number=self._arrived,
                received_at=datetime.now(UTC),
                sender=sender,
                recipients=tuple(recipients),
                raw=raw,
                message=message_from_bytes(raw),
            )
            self._mails.appendleft(mail)
            self._copies[mail.message_id] += 1

    def refuse(self, recipient: str, reply: str) -> None:
        with self._lock:
            self._refusals.appendleft(Refusal(refused_at=datetime.now(UTC), recipient=recipient, reply=reply))

    def mails(self) -> list[Mail]:
        with self._lock:
            return list(self._mails)

    def refusals(self) -> list[Refusal]:
        with self._lock:
            return list(self._refusals)

    def find(self, number: int) -> Mail | None:
        return next((mail for mail in self.mails() if mail.number == number), None)

    def to(self, recipient: str) -> list[Mail]:
        return [mail for mail in self.mails() if recipient in mail.recipients]

    def copies(self, message_id: str) -> int:
        """How many mails with this Message-ID have ever arrived."""
        with self._lock:
            return self._copies[message_id]


class MailboxHandler:
    """Decides about recipients and takes mails: aiosmtpd calls its methods by their names and positions."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._busy: Counter[str] = Counter()

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, rcpt_options: list[str]
    ) -> str:
        reply = self._answer(address)
        if reply.startswith("250"):
            envelope.rcpt_tos.append(address)
            envelope.rcpt_options.extend(rcpt_options)
        else:
            self._mailbox.refuse(address, reply)
        return reply

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        raw = envelope.original_content or b""
        self._mailbox.take(envelope.mail_from or "", list(envelope.rcpt_tos), raw)
        return "250 2.0.0 the demo's mailbox has it"

    def _answer(self, address: str) -> str:
        match address.lower().rpartition("@")[0]:
            case "refused":
                return "550 5.1.1 no such mailbox"
            case "busy" if self._busy[address] < BUSY_ANSWERS:
                self._busy[address] += 1
                return "451 4.3.0 mailbox busy, try again later"
            case "busy":
                self._busy[address] = 0
        return "250 2.1.5 OK"


class MailServer:
    """SMTP on 127.0.0.1, in a thread of its own, from `start` to `stop`."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._handler = MailboxHandler(mailbox)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mail-server", daemon=True)
        self._server: asyncio.Server | None = None

    def start(self, port: int = 0) -> int:
        """Listen and return the port (0: a free one). Raises OSError where the port is in use."""
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(port), self._loop).result()
        return int(self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(timeout=2)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=2)
        self._loop.close()

    async def _listen(self, port: int) -> asyncio.Server:
        return await self._loop.create_server(self._session, "127.0.0.1", port)

    def _session(self) -> SMTP:
        # Without a host name aiosmtpd asks the resolver for this machine's, which can take seconds without a network.
        return SMTP(self._handler, hostname="mailbox.demo", ident="NotifyX demo", enable_SMTPUTF8=True, loop=self._loop)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        open_sessions = asyncio.all_tasks() - {asyncio.current_task()}
        for session in open_sessions:
            session.cancel()
        await asyncio.gather(*open_sessions, return_exceptions=True)
