"""One run of the demo: embedded parts, both services, the samples, the addresses, and the end of it all."""

import http.client
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path

from manage_scripts.demo_parts import ports, services
from manage_scripts.demo_parts.interruption import Interruption
from manage_scripts.demo_parts.mailbox import Mailbox, MailServer
from manage_scripts.demo_parts.mailbox_page import MailboxPageServer
from manage_scripts.demo_parts.processes import Command, ProcessEndedError, Processes
from manage_scripts.demo_parts.samples import NOTIFICATIONS, ApiClient, NotAsAgreedError, follow, judge, post_all
from manage_scripts.demo_parts.services import EMAIL, NOTIFICATION
from manage_scripts.demo_parts.table import Display
from shared_events.contracts import topics

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ROOT / ".demo"
ADMIN = "admin"
READY_SECONDS = 60.0
SAMPLES_SECONDS = 60.0
POLL_SECONDS = 0.05
WATCH_SECONDS = 0.3
INTERRUPTED = 128 + signal.SIGINT


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for.

    A port of None is the usual one where that is free, 0 any free one; a folder of None is removed at the end.
    """

    once: bool
    folder: Path | None
    port: int | None
    email_port: int | None
    mailbox_port: int | None


def run(options: Options) -> int:
    """Run the demo and return its exit code. Blocks until Ctrl-C or SIGTERM; `once`: until the samples are final."""
    interruption = Interruption()
    interruption.listen()
    display = Display()
    try:
        folder = make_folder(options.folder)
    except OSError as error:
        display.line(f"The folder {error.filename} cannot be made ({error.strerror}): give a new one with --folder.")
        return 1
    demo = Demo(options, display, folder, interruption)
    try:
        code = run_to_its_end(demo, display)
    finally:
        demo.close()
    if options.folder or (code == 1 and any(folder.glob("logs/*.log"))):
        display.line(f"The databases and logs of this run are in {folder}.")
    else:
        remove(folder)
    return code


def run_to_its_end(demo: "Demo", display: Display) -> int:
    try:
        return demo.run()
    except KeyboardInterrupt:
        return demo.code_if_interrupted
    except (ProcessEndedError, NotAsAgreedError, ports.PortInUseError) as error:
        display.line(str(error), style="red")
        return 1


def make_folder(wanted: Path | None) -> Path:
    """The folder that is asked for, else a new one in .demo, or a temporary one where the project is read-only.

    Raises OSError where the one that is asked for exists or cannot be made.
    """
    if wanted:
        wanted.mkdir(parents=True)
        return wanted.resolve()
    with suppress(OSError):
        FOLDERS.mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="run-", dir=FOLDERS))
    return Path(tempfile.mkdtemp(prefix="notifyx-demo-"))


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent == FOLDERS:
        with suppress(OSError):  # another run uses it
            FOLDERS.rmdir()


class Demo:
    """Everything that one run holds; `close` ends it."""

    def __init__(self, options: Options, display: Display, folder: Path, interruption: Interruption) -> None:
        self.code_if_interrupted = INTERRUPTED
        self._options = options
        self._display = display
        self._folder = folder
        self._processes = Processes(ROOT, folder / "logs", interruption)
        self._held = ExitStack()
        self._mailbox = Mailbox()
        self._password = secrets.token_urlsafe(12)

    def run(self) -> int:
        self._take_ports()
        with self._display.step("Starting SMTP, Redis and Kafka in memory") as came:
            environments = services.environments(self._start_servers(), self._folder)
            came("SMTP (aiosmtpd), Redis (fakeredis) and Kafka (librdkafka's mock cluster) answer, all in memory")
        with self._display.step("Making tables and topics") as came:
            self._prepare(environments)
            came("Tables (SQLite, one file a service) and topics are made")
        with self._display.step("Starting both services") as came:
            key = self._start_services(environments)
            came(f"Both services run, {len(services.WORKERS) + 2} processes")
        client = ApiClient(self._api.port, key)
        code = 1 if self._show_samples(client) else 0
        if self._options.once:
            return code
        self.code_if_interrupted = code
        self._show_addresses(key)
        while True:
            self._processes.check()
            time.sleep(WATCH_SECONDS)

    def close(self) -> None:
        self._processes.stop()
        self._held.close()

    def _take_ports(self) -> None:
        options = self._options
        self._page = ports.take(
            options.mailbox_port, 8025, "--mailbox-port", lambda port: MailboxPageServer(self._mailbox, port)
        )
        self._held.callback(self._page.stop)
        self._api = ports.take(options.port, 8000, "--port", ports.Reservation)
        self._held.callback(self._api.close)
        self._console = ports.take(options.email_port, 8001, "--email-port", ports.Reservation)
        self._held.callback(self._console.close)

    def _start_servers(self) -> services.Addresses:
        command = [sys.executable, "-m", "manage_scripts.demo_parts.embedded"]
        environment = services.embedded_environment()
        redis = self._processes.start_server("redis", [*command, "redis"], environment)
        kafka = self._processes.start_server("kafka", [*command, "kafka", *topics.ALL], environment)
        self._page.start()
        mail_server = MailServer(self._mailbox)
        self._held.callback(mail_server.stop)
        return services.Addresses(
            smtp=f"{ports.HOST}:{mail_server.start()}",
            redis=self._processes.address(redis),
            kafka=self._processes.address(kafka),
        )

    def _prepare(self, environments: dict[str, dict[str, str]]) -> None:
        commands: list[Command] = [
            (f"{project}-migrate", services.manage(project, "migrate", "--no-input"), environment)
            for project, environment in environments.items()
        ]
        commands.append(("create_topics", services.manage(NOTIFICATION, "create_topics"), environments[NOTIFICATION]))
        self._processes.run_all(commands)

    def _start_services(self, environments: dict[str, dict[str, str]]) -> str:
        """Start every process, make the admins, wait until both web servers are ready, and return the API key."""
        for project, reserved in ((NOTIFICATION, self._api), (EMAIL, self._console)):
            environment = environments[project]
            self._processes.start(f"{project}-web", services.web(project, reserved.port), environment)
        alive = [self._start_worker(project, command, environments[project]) for project, command in services.WORKERS]
        key = services.manage(NOTIFICATION, "create_api_key", "demo", "--scopes", "send,read,operate")
        commands: list[Command] = [("create_api_key", key, environments[NOTIFICATION])]
        for project, environment in environments.items():
            create = services.manage(
                project, "createsuperuser", "--noinput", "--username", ADMIN, "--email", "admin@example.com"
            )
            variables = {**environment, "DJANGO_SUPERUSER_PASSWORD": self._password}
            commands.append((f"{project}-createsuperuser", create, variables))
        made, *_ = self._processes.run_all(commands)
        for port in (self._api.port, self._console.port):
            self._wait_until(partial(is_ready, port), f"http://{ports.HOST}:{port}/health/ready did not answer 200")
        for file in alive:
            self._wait_until(file.exists, f"{file.stem} has not begun its first cycle")
        return made.strip()

    def _start_worker(self, project: str, command: str, environment: dict[str, str]) -> Path:
        """Start a worker and return the file that its first cycle will touch."""
        name = f"{project}-{command}"
        file = self._folder / f"{name}.alive"
        self._processes.start(name, services.manage(project, command), {**environment, "LIVENESS_FILE": str(file)})
        return file

    def _wait_until(self, holds: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            self._processes.check()
            if holds():
                return
            if time.monotonic() > deadline:
                raise NotAsAgreedError(f"{complaint} within {READY_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)

    def _show_samples(self, client: ApiClient) -> list[str]:
        """Post and follow the samples; returns, and has printed, what did not end as it should."""
        followed = post_all(client)
        deadline = time.monotonic() + SAMPLES_SECONDS
        with self._display.samples(followed) as show:
            while (unfinished := [one for one in followed if one.finished_at is None]) and time.monotonic() < deadline:
                for one in unfinished:
                    follow(client, one)
                show()
                self._processes.check()
                time.sleep(POLL_SECONDS)
        complaints = [f"{one.sample.recipient}: {text}" for one in followed for text in judge(one, self._mailbox)]
        for complaint in complaints:
            self._display.line(f"✗ {complaint}", style="red")
        if not complaints:
            self._display.line(f"✓ All {len(followed)} ended as they should, each mail arrived once.", style="green")
        return complaints

    def _show_addresses(self, key: str) -> None:
        api = f"http://{ports.HOST}:{self._api.port}"
        console = f"http://{ports.HOST}:{self._console.port}"
        self._display.line()
        self._display.addresses(
            {
                "API, browsable": f"{api}{NOTIFICATIONS}",
                "Swagger UI": f"{api}/api/v1/schema/swagger/",
                "Console, notifications": f"{api}/admin/",
                "Console, e-mail": f"{console}/admin/",
                "  user, password": f"{ADMIN}  {self._password}",
                "Mailbox": f"http://{ports.HOST}:{self._page.port}/",
                "API key": key,
            }
        )
        self._display.line("\nSend one yourself (to refused@… or busy@… to see it fail or wait):\n")
        self._display.line(
            f"curl -i {api}{NOTIFICATIONS} -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' "
            """-d '{"recipient": "you@example.com", "subject": "Hello", "message": "It works."}'"""
        )
        self._display.line("\nCtrl-C ends everything.", style="dim")


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(ports.HOST, port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
