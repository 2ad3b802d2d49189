"""A stored mail rendered as the bytes that go over the wire (RFC 5322, MIME, RFC 6532).

Headers and parts are written directly, with the standard library's encoders for what is not plain ASCII: a short text
takes 10 µs, where `email.mime` takes 100 and `EmailMessage` 500.
"""

import binascii
import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime, parseaddr, quote
from functools import lru_cache
from typing import Literal, NamedTuple
from uuid import UUID

import idna

FOLD_AT = 76
MAX_LINE = 998
ENCODED_WORD_BYTES = 39  # so that `Subject: ` and the encoded word stay within 76 characters
UTF8_CONTINUATION = range(0x80, 0xC0)

_FORBIDDEN_IN_HEADER = re.compile(r"[\r\n\0]")
_PLAIN_SUBJECT = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_FOLDED_LINE = re.compile(r".{1,66}(?= [!-~]|$)")  # the first line also holds the header's name
_LOCAL_PART = re.compile(r"""[^\x00-\x20\x7f-\xa0@<>()\[\],;:\\"]+|"(?:[^\x00-\x1f\x7f"\\]|\\[\x20-\x7e])*\"""")
_DOMAIN = re.compile(r"[^\x00-\x20\x7f-\xa0@<>()\[\],;:\\\"]+|\[[0-9A-Za-z.:]+\]")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>")
_NOT_7BIT = re.compile(r"[^\t\n -~]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """What one row of `sent_emails` holds of a mail; all of it but `copy` is fixed at intake.

    `copy` counts how often an earlier attempt may have arrived. Above 0 it adds `X-NotifyX-Copy`, the only header in
    which two attempts differ.
    """

    id: UUID
    message_id: str
    dated_at: datetime
    sender: str
    recipient: str
    subject: str
    message: str
    html: str | None
    reply_to: str | None
    copy: int = 0


@dataclass(frozen=True, slots=True)
class RenderedMail:
    """Envelope and content. `data` has CRLF line ends, is not yet dot-stuffed, and is ASCII unless `needs_smtputf8`."""

    envelope_from: str
    envelope_to: str
    data: bytes
    needs_smtputf8: bool


class Mailbox(NamedTuple):
    header: str
    address: str


def message_id_for(notification_id: UUID, sender: str) -> str:
    """Return `<id@domain of the sender>`, the domain IDNA-encoded. ValueError if the sender is no address."""
    return f"<{notification_id}@{_sender(sender).address.rpartition('@')[2]}>"


def render(mail: Mail) -> RenderedMail:
    """Render the mail; the same mail always gives the same bytes.

    ValueError (UnicodeError included) if an address is none, a header holds CR, LF or NUL, a text is no valid Unicode,
    or `dated_at` is naive.
    """
    if mail.dated_at.tzinfo is None:
        raise ValueError("dated_at has no time zone: a mail needs an aware time")
    if not _MESSAGE_ID.fullmatch(mail.message_id):
        raise ValueError("message_id is not of the form <id@domain>")
    sender = _sender(mail.sender)
    recipient = _address("recipient", mail.recipient)
    headers = [
        f"Date: {format_datetime(mail.dated_at)}",
        f"From: {sender.header}",
        f"To: {recipient}",
        f"Subject: {_subject(mail.subject)}",
        f"Message-ID: {mail.message_id}",
    ]
    if mail.reply_to:
        headers.append(f"Reply-To: {_address('reply_to', mail.reply_to)}")
    headers.append("Auto-Submitted: auto-generated")  # RFC 3834: no vacation notice answers it
    if mail.copy:
        headers.append(f"X-NotifyX-Copy: {mail.copy}")
    headers.append("MIME-Version: 1.0")
    head = "\r\n".join(headers).encode()
    return RenderedMail(sender.address, recipient, head + b"\r\n" + _content(mail), not head.isascii())


def _content(mail: Mail) -> bytes:
    if not mail.html:
        return _part("plain", mail.message, boundary=None)
    boundary = f"=_{mail.id.hex}"
    delimiter = f"\r\n--{boundary}".encode()
    return b"".join(
        (
            f'Content-Type: multipart/alternative; boundary="{boundary}"\r\n'.encode(),
            *(delimiter, b"\r\n", _part("plain", mail.message, boundary=boundary)),
            *(delimiter, b"\r\n", _part("html", mail.html, boundary=boundary)),
            *(delimiter, b"--\r\n"),
        )
    )


def _part(subtype: Literal["plain", "html"], text: str, *, boundary: str | None) -> bytes:
    encoding, body = _body(text, boundary)
    return (
        b"Content-Type: text/%b; charset=utf-8\r\nContent-Transfer-Encoding: %b\r\n\r\n" % (subtype.encode(), encoding)
    ) + body


def _body(text: str, boundary: str | None) -> tuple[bytes, bytes]:
    """Return the transfer encoding and the encoded text, which always ends with a line end and never needs 8BITMIME."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.endswith("\n"):
        text += "\n"
    if not _NOT_7BIT.search(text) and not (boundary and boundary in text) and _longest_line(text) <= MAX_LINE:
        return b"7bit", text.replace("\n", "\r\n").encode("ascii")
    raw = text.encode()
    quoted = binascii.b2a_qp(raw, istext=True)
    if len(quoted) <= len(raw) * 4 // 3:
        return b"quoted-printable", quoted.replace(b"\n", b"\r\n")
    canonical = raw.replace(b"\n", b"\r\n")
    lines = (binascii.b2a_base64(canonical[at : at + 57], newline=False) for at in range(0, len(canonical), 57))
    return b"base64", b"\r\n".join(lines) + b"\r\n"


def _longest_line(text: str) -> int:
    return len(text) if len(text) <= MAX_LINE else max(map(len, text.split("\n")))


def _subject(subject: str) -> str:
    """Plain where every reader sees the same, folded at single spaces; otherwise encoded words (RFC 2047)."""
    _refuse_line_breaks("subject", subject)
    if not subject:
        return ""
    if _PLAIN_SUBJECT.fullmatch(subject) and "=?" not in subject:
        if len(subject) <= FOLD_AT - len("Subject: "):
            return subject
        lines: list[str] = _FOLDED_LINE.findall(subject)
        if "".join(lines) == subject:
            return "\r\n".join(lines)
    return _encoded_words(subject)


def _encoded_words(text: str) -> str:
    """RFC 2047, split between characters. `email.header.Header` would turn a vertical tab or U+2028 into a space."""
    raw = text.encode()
    words = []
    start = 0
    while start < len(raw):
        end = start + ENCODED_WORD_BYTES
        while end < len(raw) and raw[end] in UTF8_CONTINUATION:
            end -= 1
        words.append(f"=?utf-8?b?{binascii.b2a_base64(raw[start:end], newline=False).decode()}?=")
        start = end
    return "\r\n ".join(words)


@lru_cache(maxsize=64)
def _sender(sender: str) -> Mailbox:
    """Parse `ada@example.com` or `Ada <ada@example.com>`; cached, since a service has few senders."""
    _refuse_line_breaks("sender", sender)
    name, spec = parseaddr(sender)
    address = _address("sender", spec)
    if not name:
        return Mailbox(address, address)
    quoted = f'"{quote(name)}" <{address}>'
    if name.isascii() and name.isprintable() and "=?" not in name and len(quoted) <= MAX_LINE - len("From: "):
        return Mailbox(quoted, address)
    return Mailbox(f"{_encoded_words(name)}\r\n <{address}>", address)


def _address(field: str, address: str) -> str:
    """Return the address with its host IDNA-encoded (RFC 5891). ValueError if it is none, without showing it."""
    _refuse_line_breaks(field, address)
    local, _, domain = address.rpartition("@")
    if not (_LOCAL_PART.fullmatch(local) and _DOMAIN.fullmatch(domain)):
        raise ValueError(f"{field} is not a mail address of the form name@host")
    if domain.isascii():
        return address
    return f"{local}@{idna.encode(domain, uts46=True).decode('ascii')}"


def _refuse_line_breaks(field: str, value: str) -> None:
    if _FORBIDDEN_IN_HEADER.search(value):
        raise ValueError(f"{field} holds a line break or NUL: it would forge headers")
