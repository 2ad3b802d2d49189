"""An SMTP server over real TCP that does what a script says, in threads or as a process of its own.

    with ScriptedSmtpServer(Script(recipients={"bad-*": {"rcpt": ["550 5.1.1 No such user"]}})) as server:
        ...  # server.port, server.accepted, server.received, server.connections

    python -m tests.smtp_servers --script script.json --record mails.jsonl

The process prints its port, then serves until SIGTERM; a change of the script file takes effect at its next answer.
"""

import argparse
import base64
import contextlib
import fnmatch
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import msgspec

from tests.smtp_scripts import ORDINARY, Certificate, ConnectionRecord, ReceivedMail, Script, Step, read_record

__all__ = ["Certificate", "ConnectionRecord", "ReceivedMail", "Script", "ScriptedSmtpServer", "Step", "read_record"]

Tls = Literal["none", "starttls", "tls"]


class ScriptedSmtpServer:
    """Serves from `start` to `stop`; all attributes may be read, and `script` replaced, at any time from any thread."""

    host = "127.0.0.1"

    def __init__(
        self,
        script: Script | None = None,
        *,
        port: int = 0,
        tls: Tls = "none",
        certificate: Certificate | None = None,
        script_path: Path | None = None,
        record_path: Path | None = None,
    ) -> None:
        if (tls == "none") != (certificate is None):
            raise ValueError(f"tls={tls!r} and certificate={certificate!r} do not fit: give a certificate for TLS only")
        self.port = port
        self.tls = tls
        self.context = certificate.context() if certificate else None
        self.received: list[ReceivedMail] = []
        self.connections: list[ConnectionRecord] = []
        self.changed = threading.Condition()
        self.stopped = threading.Event()
        self._script = script or Script()
        self._script_path, self._script_stamp = script_path, (0, 0)
        self._record_path = record_path
        self._used: Counter[tuple[str, str]] = Counter()
        self._sessions: dict[threading.Thread, Session] = {}
        self._listener: socket.socket | None = None
        self._acceptor = threading.Thread(target=self._accept, name="smtp-acceptor")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def is_listening(self) -> bool:
        return self._listener is not None

    @property
    def accepted(self) -> list[ReceivedMail]:
        return [mail for mail in self.received if mail.acknowledged]

    @property
    def script(self) -> Script:
        self._reload()
        return self._script

    @script.setter
    def script(self, script: Script) -> None:
        with self.changed:
            self._script = script
            self._used.clear()

    def start(self) -> None:
        """Listen; the port is known, and connections are taken, when this returns."""
        if self.script.listening:
            self._listen()
        elif not self.port:
            raise ValueError("a server that does not listen at first needs a port")
        self._acceptor.start()

    def stop(self) -> None:
        self.stopped.set()
        self._acceptor.join()
        for thread, session in list(self._sessions.items()):
            session.abort()
            thread.join()

    def reset_connections(self) -> None:
        """Break every open connection (RST), also amid a delay, as a crashed server or a firewall does."""
        for session in list(self._sessions.values()):
            session.abort()

    def wait_until(self, condition: Callable[[Self], bool], timeout_seconds: float = 10) -> None:
        """Block until the condition holds. TimeoutError."""
        with self.changed:
            if not self.changed.wait_for(lambda: condition(self), timeout_seconds):
                raise TimeoutError(f"{len(self.received)} mails received, {len(self.accepted)} accepted")

    def step(self, phase: str, recipient: str = "") -> Step:
        """Take the step that the script has for this phase now."""
        script = self.script
        with self.changed:
            for pattern, steps in script.recipients.items():
                if phase in steps and fnmatch.fnmatchcase(recipient, pattern):
                    return self._take((recipient, phase), steps[phase])
            return self._take(("", phase), script.steps.get(phase, ()))

    def taken(self, phase: str) -> int:
        """How many steps of this phase were taken since the script was set, those for addresses of their own apart."""
        return self._used["", phase]

    def record_connection(self) -> ConnectionRecord:
        with self.changed:
            self.connections.append(ConnectionRecord(number=len(self.connections) + 1, at=time.time()))
            self.changed.notify_all()
            return self.connections[-1]

    def record_received(self, connection: int, sender: str, recipients: list[str], data: bytes) -> ReceivedMail:
        with self.changed:
            mail = ReceivedMail(
                number=len(self.received) + 1,
                connection=connection,
                at=time.time(),
                envelope_from=sender,
                envelope_to=recipients,
                data=data,
            )
            self.received.append(mail)
            self._append({"kind": "received", "message_id": mail.message_id} | msgspec.to_builtins(mail))
            self.changed.notify_all()
            return mail

    def record_accepted(self, mail: ReceivedMail) -> None:
        with self.changed:
            mail.acknowledged = True
            self._append({"kind": "accepted", "number": mail.number, "at": time.time()})
            self.changed.notify_all()

    def end_session(self, record: ConnectionRecord) -> None:
        with self.changed:
            record.is_closed = True
            self._sessions.pop(threading.current_thread(), None)
            self.changed.notify_all()

    def _take(self, key: tuple[str, str], steps: Sequence[Step | str]) -> Step:
        self._used[key] += 1
        remaining = self._used[key]
        for step in steps:
            taken = Step(reply=step) if isinstance(step, str) else step
            if taken.times is None or remaining <= taken.times:
                return taken
            remaining -= taken.times
        return Step()

    def _reload(self) -> None:
        if self._script_path is None:
            return
        with self.changed, contextlib.suppress(OSError):
            stat = self._script_path.stat()
            if self._script_stamp != (stamp := (stat.st_ino, stat.st_mtime_ns)):
                self.script = Script.from_json(self._script_path.read_bytes())
                self._script_stamp = stamp

    def _append(self, line: dict[str, Any]) -> None:
        if self._record_path:
            file = os.open(self._record_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, json.dumps(line).encode() + b"\n")
            finally:
                os.close(file)

    def _listen(self) -> None:
        with self.changed:
            self._listener = socket.create_server((self.host, self.port), backlog=256)
            self.port = self._listener.getsockname()[1]
            self.changed.notify_all()

    def _refuse(self) -> None:
        with self.changed:
            if self._listener:
                self._listener.close()
            self._listener = None
            self.changed.notify_all()

    def _accept(self) -> None:
        while not self.stopped.is_set():
            if self.script.listening != self.is_listening:
                self._listen() if self.script.listening else self._refuse()
            if self._listener and select.select([self._listener], [], [], 0.02)[0]:
                channel, _ = self._listener.accept()
                self._serve(channel)
            elif self._listener is None:
                self.stopped.wait(0.02)
        self._refuse()

    def _serve(self, channel: socket.socket) -> None:
        session = Session(self, channel, self.record_connection())
        thread = threading.Thread(target=session.run, name="smtp-session", daemon=True)
        self._sessions[thread] = session
        thread.start()


class Session:
    """One connection, in its thread."""

    def __init__(self, server: ScriptedSmtpServer, channel: socket.socket, record: ConnectionRecord) -> None:
        self.server = server
        self.channel = channel
        self.record = record
        self.lines: BinaryIO = channel.makefile("rb")
        self.is_over = threading.Event()
        self.sender: str | None = None
        self.recipients: list[str] = []

    def run(self) -> None:
        with contextlib.suppress(OSError):  # the client went away
            if self.server.tls == "tls":
                self._encrypt()
            self._answer("banner")
            while not self.is_over.is_set() and (line := self.lines.readline()):
                self._handle(line.decode(errors="replace").rstrip("\r\n"))
        self.lines.close()
        self.channel.close()
        self.server.end_session(self.record)

    def abort(self) -> None:
        """Make the thread end and its close a reset; may be called from any thread."""
        self.is_over.set()
        with contextlib.suppress(OSError):
            self._reset_at_close()
            self.channel.shutdown(socket.SHUT_RD)  # wakes the reader, sends nothing

    def _reset_at_close(self) -> None:
        self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _handle(self, line: str) -> None:
        verb, _, argument = line.partition(" ")
        self.record.commands.append(verb.upper())
        handler = getattr(self, f"_on_{verb.lower()}", None)
        if handler is None:
            self._say("500 5.5.2 Command not recognised")
        else:
            handler(argument)

    def _on_ehlo(self, _: str) -> None:
        script = self.server.script
        offers = list(script.extensions)
        if self.server.tls == "starttls" and not self.record.is_encrypted:
            offers.append("STARTTLS")
        if script.users:
            offers.append(f"AUTH {script.mechanisms}")
        lines = ["scripted.test", *offers]
        ordinary = "\r\n".join(f"250{' ' if line is lines[-1] else '-'}{line}" for line in lines)
        self._answer("ehlo", ordinary)

    def _on_starttls(self, _: str) -> None:
        if self._answer("starttls").startswith("220"):
            self._encrypt()

    def _on_auth(self, argument: str) -> None:
        mechanism, _, initial = argument.partition(" ")
        if mechanism.upper() == "PLAIN":
            _, user, password = base64.b64decode(initial).decode().split("\0")
        else:
            user, password = (self._prompt(prompt) for prompt in ("Username:", "Password:"))
        is_right = self.server.script.users.get(user) == password
        said = self._answer("auth", "235 2.7.0 Authenticated" if is_right else "535 5.7.8 Authentication failed")
        self.record.user = user if said.startswith("235") else ""

    def _on_mail(self, argument: str) -> None:
        address, _, parameters = argument.removeprefix("FROM:<").partition(">")
        self.record.parameters.append(parameters.strip())
        if self.sender is not None:
            self._say("503 5.5.1 Nested MAIL command")
        elif self.server.script.users and not self.record.user:
            self._say("530 5.7.0 Authentication required")
        elif "SMTPUTF8" in parameters and "SMTPUTF8" not in self.server.script.extensions:
            self._say("555 5.5.4 SMTPUTF8 not offered")
        elif self._answer("mail").startswith("2"):
            self.sender, self.recipients = address, []

    def _on_rcpt(self, argument: str) -> None:
        address = argument.removeprefix("TO:<").rpartition(">")[0]
        if self.sender is None:
            self._say("503 5.5.1 MAIL first")
        elif self._answer("rcpt", recipient=address).startswith("2"):
            self.recipients.append(address)

    def _on_data(self, _: str) -> None:
        if self.sender is None or not self.recipients:
            self._say("503 5.5.1 RCPT first")
            return
        recipient = self.recipients[0]
        if not self._answer("data", recipient=recipient).startswith("3"):
            return
        self._answer("body", ordinary="", recipient=recipient)
        if self.is_over.is_set() or (data := self._read_content()) is None:
            return
        mail = self.server.record_received(self.record.number, self.sender, self.recipients, data)
        self.sender = None
        self._answer("reply", recipient=recipient, accepts=mail)

    def _on_rset(self, _: str) -> None:
        self.sender = None
        self._answer("rset")

    def _on_noop(self, _: str) -> None:
        self._say("250 2.0.0 Ok")

    def _on_quit(self, _: str) -> None:
        self._answer("quit")
        self.is_over.set()

    def _read_content(self) -> bytes | None:
        content: list[bytes] = []
        while (line := self.lines.readline()) != b".\r\n":
            if not line:
                return None
            content.append(line.removeprefix(b"."))
        return b"".join(content)

    def _answer(
        self, phase: str, ordinary: str | None = None, recipient: str = "", accepts: ReceivedMail | None = None
    ) -> str:
        """Do what the script says and return what was said; "" if nothing."""
        step = self.server.step(phase, recipient)
        said = step.reply if step.reply is not None else (ORDINARY[phase] if ordinary is None else ordinary)
        if step.reply is None and step.then != "continue":
            said = ""
        if step.delay_seconds and self.is_over.wait(step.delay_seconds):
            return ""
        if accepts and said.startswith("2"):
            self.server.record_accepted(accepts)
        elif accepts and said.startswith(("4", "5")):
            accepts.refused = True
        if said:
            self._say(said)
        if step.then == "reset":
            self._reset_at_close()
        if step.then != "continue":
            self.is_over.set()
        return said

    def _say(self, reply: str) -> None:
        self.channel.sendall(reply.encode() + b"\r\n")

    def _prompt(self, prompt: str) -> str:
        self._say(f"334 {base64.b64encode(prompt.encode()).decode()}")
        return base64.b64decode(self.lines.readline()).decode()

    def _encrypt(self) -> None:
        assert self.server.context
        self.channel = self.server.context.wrap_socket(self.channel, server_side=True)
        self.lines = self.channel.makefile("rb")
        self.record.is_encrypted = True


def main() -> None:
    parser = argparse.ArgumentParser(description="A scripted SMTP server; prints its port, serves until SIGTERM.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", type=Path, help="JSON as Script writes it; a change takes effect at once")
    parser.add_argument("--record", type=Path, help="a file that gets a JSON line for each mail received and accepted")
    parser.add_argument("--tls", choices=("none", "starttls", "tls"), default="none")
    parser.add_argument("--certificate", type=Path, help="the folder that gets certificate.pem, for --tls")
    arguments = parser.parse_args()
    ending = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    certificate = Certificate.make(arguments.certificate) if arguments.tls != "none" else None
    paths = {"script_path": arguments.script, "record_path": arguments.record}
    with ScriptedSmtpServer(port=arguments.port, tls=arguments.tls, certificate=certificate, **paths) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        signal.sigwait(ending)


if __name__ == "__main__":
    main()
