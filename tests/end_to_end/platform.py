"""The whole product on real services: each process started with the command line of docker-compose.yml, and looked at from outside."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import redis

from manage_scripts.services import Services, SinkReader
from tests.end_to_end import topics
from tests.end_to_end.database import query
from tests.end_to_end.processes import RunningProcess
from tests.manage_scripts.compose_file import command_of

ROOT = Path(__file__).resolve().parents[2]
WORKERS = (
    "notification_relay_outbox",
    "consume_status",
    "reconcile_notifications",
    "consume_events",
    "retry_emails",
    "email_relay_outbox",
)
EMAIL_SERVICES = frozenset({"email_migrate", "email_api", "consume_events", "retry_emails", "email_relay_outbox"})
IDLE_SECONDS = 10
NOTIFICATION_TABLES = ("idempotency_keys", "notifications", "outbox_events", "dead_letters", "audit_entries")
EMAIL_TABLES = ("sent_emails", "outbox_events", "dead_letters", "audit_entries", "restores")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def wait_until(condition: Callable[[], object], timeout_seconds: float, what: str) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_seconds:g} s: {what}")
        time.sleep(0.05)


@dataclass(slots=True)
class Platform:
    """`overrides` are environment variables of all processes, `route` has the last word on those of a service.

    One pair of databases; `reset()` empties it between tests.
    """

    services: Services
    folder: Path
    overrides: dict[str, str] = field(default_factory=dict)
    route: Callable[[str, dict[str, str]], dict[str, str]] = field(default=lambda _service, environment: environment)
    processes: list[RunningProcess] = field(default_factory=list)
    key: str = ""
    port: int = 0
    _local: threading.local = field(default_factory=threading.local)
    _connections: list[http.client.HTTPConnection] = field(default_factory=list)
    _numbers: Counter[str] = field(default_factory=Counter)

    # Processes

    def environment(self, service: str, **overrides: str) -> dict[str, str]:
        found = self.services.environment()
        database = found["EMAIL_DATABASE_URL" if service in EMAIL_SERVICES else "NOTIFICATION_DATABASE_URL"]
        variables = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "SECRET_KEY": "end-to-end tests have a key of their own, longer than fifty characters",
            "ALLOWED_HOSTS": "127.0.0.1",
            "DATABASE_URL": database,
            "REDIS_URL": found["REDIS_URL"],
            "KAFKA_BOOTSTRAP_SERVERS": found["KAFKA_BOOTSTRAP_SERVERS"],
            "EMAIL_URL": found["EMAIL_URL"],
            "DEFAULT_FROM_EMAIL": "NotifyX <noreply@example.com>",
            "RATE_LIMIT_CLIENT": "0",
            "RATE_LIMIT_RECIPIENT": "0",
            **self.overrides,
            **overrides,
        }
        return self.route(service, variables)

    def run(self, service: str, *arguments: str) -> str:
        """Runs a one-shot service of docker-compose.yml to its end and returns its stdout."""
        return self.run_command([*command_of(service), *arguments], self.environment(service))

    def manage(self, project: str, *arguments: str, check: bool = True) -> str:
        service = "email_migrate" if project == "email_project" else "notification_migrate"
        return self.run_command(["python", f"{project}/manage.py", *arguments], self.environment(service), check=check)

    def run_command(self, command: Sequence[str], environment: dict[str, str], *, check: bool = True) -> str:
        done = self.completed(command, environment)
        assert not check or done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr[-3000:]}"
        return done.stdout

    def completed(self, command: Sequence[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    def start(self, *names: str, **overrides: str) -> list[RunningProcess]:
        """Starts services of docker-compose.yml as processes. The API listens on a free port."""
        return [self._start_one(name, overrides) for name in names]

    def _start_one(self, name: str, overrides: dict[str, str]) -> RunningProcess:
        command = command_of(name)
        if name == "notification_api":
            self.port = free_port()
            command[command.index("--host") + 1] = "127.0.0.1"
            command[command.index("--port") + 1] = str(self.port)
        self._numbers[name] += 1
        log_path = self.folder / f"{name}-{self._numbers[name]}.log"
        with log_path.open("wb") as log:
            popen = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment(name, **overrides),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process = RunningProcess(name, popen, log_path)
        self.processes.append(process)
        if name == "notification_api":
            wait_until(lambda: self._is_live(popen, log_path), 30, f"the API is live; {log_path.read_text()[-2000:]}")
        return process

    def _is_live(self, popen: subprocess.Popen[bytes], log_path: Path) -> bool:
        assert popen.poll() is None, log_path.read_text()[-3000:]
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/health/live", key=None).status == 200
        return False

    def start_all(self, **overrides: str) -> None:
        self.start("notification_api", *WORKERS, **overrides)

    @contextlib.contextmanager
    def running(self, **overrides: str) -> Iterator[Self]:
        """All processes on empty tables for the block; at its end each takes SIGTERM and ends with 0."""
        self.overrides = overrides
        self.reset()
        try:
            self.start_all()
            yield self
            codes = self.stop_all()
            assert set(codes.values()) == {0}, codes
        finally:
            self.kill_all()

    def assert_all_live(self) -> None:
        ended = {process.name: process.log[-2000:] for process in self.processes if process.popen.poll() is not None}
        assert not ended, ended

    def one(self, name: str) -> RunningProcess:
        return next(
            process for process in reversed(self.processes) if process.name == name and process.popen.poll() is None
        )

    def stop_all(self) -> dict[str, int]:
        """SIGTERM to all that run; returns exit codes by log name."""
        running = [process for process in self.processes if process.popen.poll() is None]
        for process in running:
            process.popen.send_signal(signal.SIGTERM)
        codes = {}
        for process in running:
            try:
                codes[process.log_path.stem] = process.popen.wait(45)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[process.log_path.stem] = -9
        self.processes.clear()
        return codes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_all()

    def kill_all(self) -> None:
        """Ends whatever still runs, and this side's connections."""
        for process in self.processes:
            process.kill()
        self.processes.clear()
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._local = threading.local()

    def logs(self, *parts: str) -> Iterator[str]:
        """Lines of all logs so far that hold one of `parts`, whatever their case."""
        for path in sorted(self.folder.glob("*.log")):
            for line in path.read_text(errors="replace").splitlines():
                if any(part.lower() in line.lower() for part in parts):
                    yield f"{path.stem}: {line}"

    # HTTP

    def request(
        self, method: str, path: str, body: Any = None, *, key: str | None = "", headers: dict[str, str] | None = None
    ) -> Answer:
        """One request over this thread's connection. `key`: an API key, the platform's own unless given, none for None."""
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {key or self.key}"
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if raw is not None:
            sent.setdefault("Content-Type", "application/json")
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        # A server may close what is idle, so nothing old is used again: a POST on it would fail without having been seen.
        is_idle = time.monotonic() - getattr(self._local, "used_at", 0) > IDLE_SECONDS
        if connection is None or connection.port != self.port or is_idle:
            connection = self._local.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            self._connections.append(connection)
        self._local.used_at = time.monotonic()
        try:
            connection.request(method, path, body=raw, headers=sent)
            response = connection.getresponse()
            return Answer(
                response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
            )
        except (OSError, http.client.HTTPException):
            connection.close()
            self._local.connection = None
            raise

    def post(self, body: dict[str, Any] | None = None, *, idempotency_key: str | None = None, **fields: Any) -> Answer:
        wanted = body or {
            "recipient": "ada@example.com",
            "subject": "Welcome",
            "message": "Welcome to NotifyX",
            **fields,
        }
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key is not None else None
        return self.request("POST", "/api/v1/notifications", wanted, headers=headers)

    def post_many(self, count: int, *, clients: int = 16, prefix: str = "r") -> list[str]:
        """Posts `count` singles from `clients` threads; each must be answered 202. Returns their ids."""

        def post(n: int) -> str:
            answer = self.post(recipient=f"{prefix}{n}@example.com")
            assert answer.status == 202, answer
            return str(answer.json()["id"])

        with ThreadPoolExecutor(clients) as pool:
            return list(pool.map(post, range(count)))

    def post_batches(self, count: int, *, size: int = 500, prefix: str = "b") -> list[str]:
        ids: list[str] = []
        for first in range(0, count, size):
            items = [
                {"recipient": f"{prefix}{n}@example.com", "subject": "Welcome", "message": "Welcome to NotifyX"}
                for n in range(first, min(count, first + size))
            ]
            answer = self.request("POST", "/api/v1/notifications/batch", {"notifications": items})
            assert answer.status == 202, answer
            ids += [item["id"] for item in answer.json()["notifications"]]
        return ids

    def get(self, notification_id: str) -> dict[str, Any]:
        answer = self.request("GET", f"/api/v1/notifications/{notification_id}")
        assert answer.status == 200, answer
        found: dict[str, Any] = answer.json()
        return found

    def wait_final(self, notification_id: str, timeout_seconds: float = 30) -> dict[str, Any]:
        wait_until(
            lambda: self.get(notification_id)["final"],
            timeout_seconds,
            f"{notification_id} is final: {self.get(notification_id)}",
        )
        return self.get(notification_id)

    # Rows, mails, topics

    def sql(self, service: str, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """`service` is notification or email; one connection a call, committed."""
        return query(self.services.environment()[f"{service.upper()}_DATABASE_URL"], statement, parameters)

    def count(self, service: str, table: str, where: str = "1=1") -> int:
        return int(self.sql(service, f"SELECT COUNT(*) FROM {table} WHERE {where}")[0][0])

    def statuses(self) -> dict[str, int]:
        return {
            str(status): int(n)
            for status, n in self.sql("notification", "SELECT status, COUNT(*) FROM notifications GROUP BY status")
        }

    def wait_all_sent(self, count: int, timeout_seconds: float) -> None:
        wait_until(lambda: self.statuses() == {"SENT": count}, timeout_seconds, f"{count} SENT, now {self.statuses()}")

    def mails(self) -> Counter[str]:
        """Message-IDs at the smtp-sink since the last reset, with how often each came."""
        path = self.services.smtp_sink.dump_path
        return Counter(SinkReader(path).read_new()) if path.exists() else Counter()

    def assert_one_mail_each(self, ids: Iterable[str]) -> None:
        expected = {f"<{notification_id}@example.com>" for notification_id in ids}
        mails = self.mails()
        assert set(mails) == expected, f"{len(expected - set(mails))} missing, {len(set(mails) - expected)} unknown"
        twice = {name: n for name, n in mails.items() if n > 1}
        assert not twice, f"sent more than once: {twice}"

    def assert_nothing_open(self) -> None:
        """No row is left to do in any table, and the consumers have committed all there is."""
        wait_until(lambda: not self.open_rows(), 20, f"no open rows, now {self.open_rows()}")
        wait_until(lambda: self.lag() == 0, 20, f"no consumer lag, now {self.lag()}")

    def assert_no_budget_was_spent(self) -> None:
        """What an outage must leave as it is: retry counts, crash counts, and the tables of dead letters."""
        for service, tables in (("notification", ("outbox_events",)), ("email", ("outbox_events", "sent_emails"))):
            for table in tables:
                spent = self.count(service, table, "retry_count <> 0 OR crashes <> 0")
                assert spent == 0, f"{spent} rows of {service}.{table} with retry_count or crashes"
            assert self.count(service, "dead_letters") == 0

    def open_rows(self) -> dict[str, int]:
        found = {
            "notification.outbox_events": self.count("notification", "outbox_events", "due_at IS NOT NULL"),
            "email.outbox_events": self.count("email", "outbox_events", "due_at IS NOT NULL"),
            "sent_emails": self.count(
                "email", "sent_emails", "due_at IS NOT NULL OR lease_token <> 0 OR data_started_at IS NOT NULL"
            ),
            "notifications": self.count("notification", "notifications", "reconcile_at IS NOT NULL"),
        }
        return {name: n for name, n in found.items() if n}

    def lag(self) -> int:
        """Records that the two consumer groups have not committed yet."""
        return topics.lag(self.services.kafka.bootstrap_servers)

    def records(self, topic: str) -> list[bytes]:
        """The values of all records of a topic."""
        return topics.values(self.services.kafka.bootstrap_servers, topic)

    # Set up

    def prepare(self) -> None:
        """Once: schema, topics, an API key."""
        self.run("notification_migrate")
        self.run("email_migrate")
        self.run("create_topics")
        self.sql("notification", "DELETE FROM api_keys")  # of an earlier run on the same services
        self.key = self.manage(
            "notification_project", "create_api_key", "end-to-end", "--scopes", "send,read,operate"
        ).strip()

    def reset(self) -> None:
        """Empties tables, Redis and the sink's dump. Nothing may run."""
        for table in (*NOTIFICATION_TABLES, "process_state"):
            self.sql("notification", f"TRUNCATE {table}")
        for table in (*EMAIL_TABLES, "process_state"):
            self.sql("email", f"TRUNCATE {table}")
        if self.services.smtp_sink.running:
            self.services.smtp_sink.stop()
        self.services.smtp_sink.dump_path.unlink(missing_ok=True)
        self.services.start()
        with redis.Redis.from_url(self.services.environment()["REDIS_URL"]) as client:
            client.flushdb()
        for log in self.folder.glob("*.log"):
            log.unlink()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
