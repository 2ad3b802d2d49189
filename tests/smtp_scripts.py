"""What the scripted SMTP server is told to do, and what it reports."""

import json
import re
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Literal, Self

import msgspec

EXTENSIONS = ("8BITMIME", "SIZE 10485760", "SMTPUTF8", "ENHANCEDSTATUSCODES", "PIPELINING")
ORDINARY = {
    "banner": "220 scripted.test ESMTP",
    "starttls": "220 2.0.0 Ready to start TLS",
    "mail": "250 2.1.0 Ok",
    "rcpt": "250 2.1.5 Ok",
    "data": "354 End data with <CR><LF>.<CR><LF>",
    "reply": "250 2.0.0 Ok: queued",
    "rset": "250 2.0.0 Ok",
    "quit": "221 2.0.0 Bye",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happens at a phase. Without `reply` the ordinary answer is given, or none where the connection ends.

    `reply` is sent as written (CRLF between lines), so that it may be malformed; "" sends nothing. `times` limits the
    step; then the next of its list holds, and after the last the ordinary answer.
    """

    reply: str | None = None
    delay_seconds: float = 0
    then: Literal["continue", "close", "reset"] = "continue"
    times: int | None = None


Steps = Mapping[str, Sequence[Step | str]]  # a string is Step(reply=…)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Steps by phase: banner, ehlo, starttls, auth, mail, rcpt, data, body, reply, rset, quit.

    "body" comes after 354 and before any content is read, "reply" after the final dot. `recipients` maps addresses or
    patterns (`bad-*`) to steps of their own for rcpt, data, body and reply; they win, and count for each address apart.
    """

    steps: Steps = field(default_factory=dict)
    recipients: Mapping[str, Steps] = field(default_factory=dict)
    listening: bool = True
    extensions: Sequence[str] = EXTENSIONS
    users: Mapping[str, str] = field(default_factory=dict)  # where there are any, MAIL needs AUTH
    mechanisms: str = "PLAIN LOGIN"

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        return msgspec.json.decode(text, type=cls)

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    def write(self, path: Path) -> None:
        """Replace the file in one step: a reader sees the old script or the new one."""
        draft = path.with_name(f"{path.name}.new")
        draft.write_bytes(self.to_json())
        draft.replace(path)


@dataclass(slots=True, kw_only=True)
class ReceivedMail:
    """Content that arrived with its final dot; `acknowledged` as soon as 2xx is about to be answered, `refused` as 4xx or 5xx is."""

    number: int
    connection: int
    at: float
    envelope_from: str
    envelope_to: list[str]
    data: bytes
    acknowledged: bool = False
    refused: bool = False

    @property
    def message(self) -> EmailMessage:
        return BytesParser(policy=policy.default).parsebytes(self.data)

    @property
    def message_id(self) -> str:
        match = re.search(rb"^Message-ID: *(\S+)", self.data, re.IGNORECASE | re.MULTILINE)
        return match[1].decode() if match else ""


@dataclass(slots=True, kw_only=True)
class ConnectionRecord:
    number: int
    at: float
    commands: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)  # of each MAIL
    user: str = ""
    is_encrypted: bool = False
    is_closed: bool = False


@dataclass(frozen=True, slots=True)
class Certificate:
    """A self-signed certificate, which is its own authority."""

    certificate_path: Path
    key_path: Path

    @classmethod
    def make(cls, folder: Path, host: str = "localhost", address: str = "127.0.0.1") -> Self:
        folder.mkdir(parents=True, exist_ok=True)
        made = cls(folder / "certificate.pem", folder / "key.pem")
        kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        names = ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host},IP:{address}"]
        files = ["-keyout", str(made.key_path), "-out", str(made.certificate_path)]
        subprocess.run(["openssl", "req", *kind, *names, *files], check=True, capture_output=True)
        return made

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate_path, self.key_path)
        return context


def read_record(path: Path) -> list[ReceivedMail]:
    """Read what a server process has recorded so far, in the order of arrival, over its restarts."""
    mails: list[ReceivedMail] = []
    latest: dict[int, ReceivedMail] = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        item = json.loads(line)
        if item["kind"] == "accepted":
            latest[item["number"]].acknowledged = True
        else:
            latest[item["number"]] = msgspec.convert(item, ReceivedMail)
            mails.append(latest[item["number"]])
    return mails
