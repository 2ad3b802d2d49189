"""Postfix's smtp-sink: takes every mail and writes it to a file before it answers 250."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from manage_scripts.service_parts.process import ServiceProcess, own_account
from manage_scripts.service_parts.programs import require_program
from manage_scripts.service_parts.state import HOST

MESSAGE_START = b"\fsmtp-sink message\n"  # a form feed begins no line of a mail's header


class SmtpSink(ServiceProcess):
    """`options` are smtp-sink's own for the next start: `("-r", "RCPT")` refuses each recipient with 4xx, `("-f", ".")`
    each mail with 5xx, `("-q", ".")` hangs up where the reply to the final dot is due.
    """

    name = "smtp_sink"
    programs = ("smtp-sink",)
    start_seconds = 20
    options: tuple[str, ...] = ()

    @property
    def dump_path(self) -> Path:
        """All mails since the last wipe; read it with `read_sink` or SinkReader."""
        return self.folder / "mails"

    def prepare(self) -> None:
        """The sink makes its file itself."""

    def command(self) -> list[str]:
        as_user = ("-u", own_account()) if os.geteuid() == 0 else ()  # it does not start as root without -u
        template = str(self.dump_path).replace("%", "%%")  # it goes through strftime
        start = MESSAGE_START.decode().replace("\n", "\\n").replace("\f", "\\f")
        dump = ("-D", template, "-S", start)
        return [require_program("smtp-sink"), *as_user, *dump, *self.options, f"{HOST}:{self.port}", "2000"]

    def answers(self) -> bool:
        with socket.create_connection((HOST, self.port), timeout=1) as connection:
            connection.settimeout(1)
            return connection.recv(1) != b""  # with options it may greet with 4xx or 5xx, which is an answer

    def wipe_data(self) -> None:
        self.dump_path.unlink(missing_ok=True)

    def url(self) -> str:
        return f"smtp://{HOST}:{self.port}"


class SinkReader:
    """Reads a sink's file onwards from where the last call ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read_new(self) -> list[str]:
        """The Message-IDs, with their angle brackets, of the mails that came since the last call, in order; "" for a
        mail without one. A mail of which only a part is in the file yet comes with a later call.
        """
        try:
            with self._path.open("rb") as dump:
                dump.seek(self._offset)
                data = dump.read()
        except FileNotFoundError:
            return []
        message_ids = []
        position = 0
        while (start := data.find(MESSAGE_START, position)) >= 0 and (end := data.find(b"\n\n", start)) >= 0:
            message_ids.append(_message_id(data[start + len(MESSAGE_START) : end]))
            position = end
        self._offset += position  # what follows is read again: the last bytes may be a part of the next message's start
        return message_ids


def read_sink(path: Path) -> list[str]:
    """The Message-IDs of all mails that the sink has taken, in order; a mail sent twice is listed twice."""
    return SinkReader(path).read_new()


def _message_id(header: bytes) -> str:
    """RFC 5322 2.2: names are case-insensitive, and the value may stand on a folded line."""
    unfolded = header.replace(b"\n\t", b" ").replace(b"\n ", b" ")
    for line in unfolded.split(b"\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"message-id":
            return value.strip().decode("ascii", "replace")
    return ""
