"""Where the faults happen: all processes of the product on real services, with a proxy in front of each database and the mail server."""

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from confluent_kafka import KafkaException

from manage_scripts.services import Services, SinkReader
from tests.end_to_end.platform import EMAIL_SERVICES, WORKERS, Platform, wait_until
from tests.end_to_end.processes import RunningProcess
from tests.proof.proxy import FaultProxy
from tests.smtp_servers import Script, ScriptedSmtpServer

PROCESSES = ("notification_api", *WORKERS)
QUICK_SETTINGS = {
    # A fault is over soon where the waits are short. What they wait for stays the same.
    "KAFKA_MESSAGE_TIMEOUT_SECONDS": "4",
    "OUTBOX_LEASE_SECONDS": "6",
    "OUTBOX_RETRY_MAX_SECONDS": "5",
    "EMAIL_LEASE_SECONDS": "6",
    "EMAIL_RETRY_BASE_SECONDS": "1",
    "EMAIL_RETRY_MAX_SECONDS": "4",
    "EMAIL_MAX_ATTEMPTS": "200",
    "EMAIL_MAX_RESENDS": "50",
    "RETRY_POLL_SECONDS": "0.5",
    "RECONCILE_AFTER_SECONDS": "8",
    "RECONCILE_POLL_SECONDS": "1",
    "SMTP_CONNECTIONS": "4",
    "SMTP_TIMEOUT_SECONDS": "5",
    "SMTP_REPLY_TIMEOUT_SECONDS": "8",
    "LOG_LEVEL": "INFO",
}
CRASH_TIMEOUT_SECONDS = 45.0


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.hostname is None or parts.port is None:
        raise ValueError(f"no host and port in {parts.scheme}://…")
    return parts.hostname, parts.port


def _notification_id(message_id: str) -> str:
    return message_id.strip("<>").partition("@")[0]


def _through(url: str, proxy: FaultProxy) -> str:
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{credentials}{'@' if credentials else ''}127.0.0.1:{proxy.port}"))


@dataclass(slots=True)
class Stage:
    """`replicas` of each worker run; the oldest of each is spared where a fault ends one of them.

    `died` are processes that ended though nothing ended them.
    """

    platform: Platform
    notification_database: FaultProxy
    email_database: FaultProxy
    smtp: FaultProxy
    redis: FaultProxy
    scripted: ScriptedSmtpServer
    replicas: int = 1
    _sink: SinkReader | None = None
    _mails: Counter[str] = field(default_factory=Counter)
    died: list[str] = field(default_factory=list)

    @property
    def services(self) -> Services:
        return self.platform.services

    @property
    def proxies(self) -> tuple[FaultProxy, ...]:
        return (self.notification_database, self.email_database, self.smtp, self.redis)

    def start(self) -> None:
        self.platform.overrides = dict(QUICK_SETTINGS)
        self.platform.route = self._route
        self.platform.prepare()
        self.platform.reset()
        self.revive()

    def _route(self, service: str, environment: dict[str, str]) -> dict[str, str]:
        database = self.email_database if service in EMAIL_SERVICES else self.notification_database
        return {
            **environment,
            "DATABASE_URL": _through(environment["DATABASE_URL"], database),
            "EMAIL_URL": _through(environment["EMAIL_URL"], self.smtp),
            "REDIS_URL": _through(environment["REDIS_URL"], self.redis),
        }

    # Processes

    def running(self, name: str) -> int:
        return sum(process.name == name and process.popen.poll() is None for process in self.platform.processes)

    def revive(self) -> None:
        """Starts what does not run, as a supervisor does; called also where all runs."""
        self.died += [
            f"{process.name} ended with {process.popen.returncode}: {process.log[-500:]}"
            for process in self.platform.processes
            if process.popen.poll() not in (None, 0, -signal.SIGKILL)
        ]
        self.platform.processes[:] = [p for p in self.platform.processes if p.popen.poll() is None]
        for name in PROCESSES:
            wanted = 1 if name == "notification_api" else self.replicas
            for _ in range(wanted - self.running(name)):
                self.platform.start(name)

    def end(self, name: str, *, kill: bool) -> None:
        """Ends the youngest process of a name: SIGKILL, or SIGTERM, after which it must end with 0."""
        process = self.platform.one(name)
        if kill:
            process.kill()
        else:
            wait_until(lambda: handles_sigterm(process.popen.pid), 30, f"{name} has its signal handlers")
            code = process.terminate()
            assert code == 0, f"{name} ended with {code}: {process.log[-1500:]}"

    def crash(self, name: str, point: str) -> None:
        """Runs a process of `name` that ends itself at `point`, waits until it has, and starts it again as it was.

        AssertionError where the process never came there: then nothing was shown.
        """
        self.end(name, kill=False)
        (process,) = self.platform.start(name, CRASH_POINT=point)
        try:
            wait_until(
                lambda: has_crashed(process), CRASH_TIMEOUT_SECONDS, f"{name} came to {point}; {process.log[-800:]}"
            )
        finally:
            process.kill()
        self.revive()

    # The mail server

    def script(self, script: Script) -> None:
        """From now on the scripted server answers instead of the sink."""
        self.scripted.script = script
        self._send_to(("127.0.0.1", self.scripted.port))

    def _send_to(self, target: tuple[str, int]) -> None:
        if self.smtp.target != target:
            self.smtp.target = target

    def heal(self) -> None:
        """All services run, nothing is in the way, all processes run."""
        for service in self.services.all:
            if service.frozen:
                service.thaw()
        self.services.start()
        for proxy in self.proxies:
            proxy.heal()
        self.scripted.script = Script()
        self._send_to(_address(self.services.smtp_sink.url()))
        self.revive()

    def mails(self) -> Counter[str]:
        """How often each mail arrived, whole, by notification id, since the stage was set."""
        if self._sink is None:
            self._sink = SinkReader(self.services.smtp_sink.dump_path)
        self._mails.update(map(_notification_id, self._sink.read_new()))
        # The scripted server has a mail before it says what becomes of it; without an answer it has it all the same.
        arrived = [mail for mail in list(self.scripted.received) if not mail.refused]
        return self._mails + Counter(_notification_id(mail.message_id) for mail in arrived)

    # What is left to do

    def open_rows(self) -> int:
        """Rows that somebody still has to do something with, in both databases; held mails wait for a human and are none of them."""
        return sum(self.open_by_table().values())

    def open_by_table(self) -> dict[str, int]:
        found = self.platform.open_rows()
        waiting = "reconcile_at IS NOT NULL AND status <> 'UNCERTAIN'"
        found["notifications"] = self.platform.count("notification", "notifications", waiting)
        return {name: n for name, n in found.items() if n}

    def wait_until_started(self) -> None:
        """Returns when every process has come to its work."""
        for process in list(self.platform.processes):
            wait_until(lambda pid=process.popen.pid: handles_sigterm(pid), 30, f"{process.name} works")  # type: ignore[misc]

    def dead_letters(self) -> int:
        return sum(self.platform.count(service, "dead_letters") for service in ("notification", "email"))

    def converge(self, timeout_seconds: float) -> bool:
        """Waits until nothing is left to do and no record is unread; False where that is not so in time."""
        deadline = time.monotonic() + timeout_seconds
        while self.open_rows() or self._lag() or self.open_rows():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.25)
        return True

    def _lag(self) -> int:
        try:
            return self.platform.lag()
        except KafkaException:  # a broker that was just started may not know all its partitions yet
            return 1


def handles_sigterm(pid: int) -> bool:
    """Whether the process has come so far that SIGTERM does not simply end it; from SigCgt of /proc."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, mask = line.partition(":")
        if name == "SigCgt":
            return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)
    return False


def has_crashed(process: RunningProcess) -> bool:
    """Whether it was ended by SIGKILL, or one of its children was: the API's parent then starts another."""
    code = process.popen.poll()
    if code is None:
        return "Unexpected exit from worker" in process.log
    assert code == -9, f"{process.name} ended with {code}: {process.log[-1500:]}"
    return True


@contextlib.contextmanager
def stage(services_folder: Path, logs: Path, replicas: int = 1) -> Iterator[Stage]:
    """A stage that is set, on services in `services_folder`; all ends with the block."""
    services = Services(services_folder)
    with contextlib.ExitStack() as stack:
        stack.callback(services.stop)
        services.stop("kafka")
        services.kafka.wipe()  # records of an earlier run in this folder would be orphans
        services.start()
        environment = services.environment()
        platform = stack.enter_context(Platform(services, logs))
        database = _address(environment["NOTIFICATION_DATABASE_URL"])
        targets = (database, database, _address(environment["EMAIL_URL"]), _address(environment["REDIS_URL"]))
        proxies = [stack.enter_context(FaultProxy(target)) for target in targets]
        found = Stage(
            platform=platform,
            notification_database=proxies[0],
            email_database=proxies[1],
            smtp=proxies[2],
            redis=proxies[3],
            scripted=stack.enter_context(ScriptedSmtpServer()),
            replicas=replicas,
        )
        found.start()
        yield found
