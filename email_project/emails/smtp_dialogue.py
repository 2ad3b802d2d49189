"""What client and SMTP server say to each other, line by line (RFC 5321 4.2): replies, and smtplib's commands."""

import enum
import re
import smtplib
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAX_REPLY_BYTES = 65536
MAX_REPLY_TEXT = 500
CHUNK_BYTES = 65536
LIMIT_PRECISION_SECONDS = 0.01
SERVICE_CLOSING = 421

_REPLY_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED_CODE = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3} ")
_CONTROL_OR_SPACE = re.compile(r"[\x00-\x20\x7f-\xa0]+")


class Digit(enum.IntEnum):
    """What a reply's first digit says (RFC 5321 4.2.1); a client goes by it alone."""

    COMPLETION = 2
    INTERMEDIATE = 3
    TRANSIENT = 4
    PERMANENT = 5


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer; `text` is one line of at most 500 characters, the enhanced code, if any, in front."""

    code: int
    text: str

    @classmethod
    def parse(cls, code: int, lines: bytes) -> Self:
        text = lines.decode(errors="replace")
        if text.isprintable() and len(text) <= MAX_REPLY_TEXT:  # one line, and clean
            return cls(code, text.strip())
        first, *rest = text.split("\n")
        match = _ENHANCED_CODE.match(first)
        repeated = match[0] if match else ""
        text = " ".join((first, *(line.removeprefix(repeated) for line in rest)))
        return cls(code, _CONTROL_OR_SPACE.sub(" ", text).strip()[:MAX_REPLY_TEXT])

    @property
    def digit(self) -> int:
        return self.code // 100

    @property
    def is_refusal(self) -> bool:
        return self.digit >= Digit.TRANSIENT

    @property
    def is_closing(self) -> bool:
        return self.code == SERVICE_CLOSING


class MalformedReplyError(Exception):
    """No reply: RFC 5321 4.2 is broken, or the server spoke before it was asked."""


class Dialogue(smtplib.SMTP):
    """smtplib's commands over a socket handed in.

    OSErrors pass as they are, and a reply has one deadline for all its bytes, however slowly they drip.
    """

    def __init__(self, channel: socket.socket, local_hostname: str, timeout_seconds: float) -> None:
        super().__init__(local_hostname=local_hostname)
        self.channel = channel
        self.timeout_seconds = timeout_seconds
        self._limit_seconds = -1.0
        self._received = b""

    @property
    def has_unread(self) -> bool:
        """Whether the server said more than it was asked, so that the next reply would be taken for another."""
        return bool(self._received)

    def say(self, *commands: str) -> None:
        """Send the commands in one go. OSError; MalformedReplyError if an unasked reply is waiting."""
        if self.has_unread:
            raise MalformedReplyError
        text = "\r\n".join(commands)
        if text.count("\n") != len(commands) - 1 or text.count("\r") != len(commands) - 1:
            raise ValueError("an SMTP command holds a line break")
        self.send(f"{text}\r\n")

    def hear(self, limit_seconds: float | None = None) -> Reply:
        """Return the next reply, `timeout_seconds` being the limit if none is given. OSError, MalformedReplyError."""
        return Reply.parse(*self._read_reply(self.timeout_seconds if limit_seconds is None else limit_seconds))

    def ask(self, command: str) -> Reply:
        self.say(command)
        return self.hear()

    def hello(self) -> Reply:
        """EHLO; smtplib keeps what is offered in `esmtp_features`."""
        return Reply.parse(*self.ehlo())

    def putcmd(self, cmd: str, args: str = "") -> None:
        self.say(f"{cmd} {args}" if args else cmd)

    def getreply(self) -> tuple[int, bytes]:
        return self._read_reply(self.timeout_seconds)

    def send(self, s: "ReadableBuffer | str") -> None:
        self._limit_to(self.timeout_seconds)
        self.channel.sendall(s.encode() if isinstance(s, str) else s)

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        if self.has_unread:  # written by whoever could write before the channel was safe
            raise MalformedReplyError
        self._limit_to(self.timeout_seconds)
        self.channel = context.wrap_socket(self.channel, server_hostname=host)

    def close(self) -> None:
        self.channel.close()

    def _read_reply(self, limit_seconds: float) -> tuple[int, bytes]:
        deadline = time.monotonic() + limit_seconds
        size, code = 0, b""
        texts: list[bytes] = []
        while True:
            line = self._read_line(deadline)
            size += len(line)
            match = _REPLY_LINE.fullmatch(line)
            if not match or size > MAX_REPLY_BYTES or (code and match[1] != code):
                raise MalformedReplyError
            code = match[1]
            texts.append(match[3] or b"")
            if match[2] != b"-":
                return int(code), b"\n".join(texts)

    def _read_line(self, deadline: float) -> bytes:
        line, line_end, rest = self._received.partition(b"\n")
        while not line_end:
            if len(line) > MAX_REPLY_BYTES:
                raise MalformedReplyError
            if (remaining := deadline - time.monotonic()) <= 0:
                raise TimeoutError
            self._limit_to(remaining)
            if not (received := self.channel.recv(CHUNK_BYTES)):
                raise ConnectionResetError
            line, line_end, rest = (line + received).partition(b"\n")
        self._received = rest
        return line.removesuffix(b"\r")

    def _limit_to(self, seconds: float) -> None:
        """Limit the next call on the socket, to a hundredth of a second: each change costs a system call."""
        if not 0 <= self._limit_seconds - seconds < LIMIT_PRECISION_SECONDS:
            self.channel.settimeout(seconds)
            self._limit_seconds = seconds
