"""Real MariaDB, Redis, Kafka and SMTP servers on this machine, without a container engine.

`python3 manage_scripts/services.py start | stop | status | env | install [--dir DIR]`. The servers listen on free
ports of 127.0.0.1 that are chosen once and kept in DIR/services.json, so that several clones run side by side.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from manage_scripts.bootstrap import ROOT
from manage_scripts.service_parts import programs
from manage_scripts.service_parts.kafka_broker import KafkaBroker, fetch_jars
from manage_scripts.service_parts.mariadb import DatabaseUrls, MariaDb
from manage_scripts.service_parts.process import ServiceError, ServiceProcess
from manage_scripts.service_parts.redis_server import RedisServer
from manage_scripts.service_parts.smtp_sink import SinkReader, SmtpSink, read_sink
from manage_scripts.service_parts.state import State

if TYPE_CHECKING:
    from typing import Self  # newer than the Pythons to which bootstrap says that they are too old

__all__ = ["DatabaseUrls", "ServiceError", "Services", "SinkReader", "read_sink"]

COMPOSE_SERVICES = ("mysql", "redis", "kafka", "mail")


class Services:
    """The four servers of one folder. As a context manager it starts them all and stops them at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.state = state = State(self.folder / "services.json")
        self.mariadb = MariaDb(self.folder, state)
        self.redis = RedisServer(self.folder, state)
        self.kafka = KafkaBroker(self.folder, state)
        self.smtp_sink = SmtpSink(self.folder, state)

    @property
    def all(self) -> tuple[ServiceProcess, ...]:
        return (self.mariadb, self.redis, self.kafka, self.smtp_sink)

    def start(self, *names: str) -> None:
        """Starts the named servers (all without a name) at the same time; returns when each of them answers.

        Raises ServiceError with every reason when some do not; the others then run.
        """
        errors = self.try_start(*names)
        if errors:
            raise ServiceError("\n".join(str(error) for error in errors.values()))

    def try_start(self, *names: str) -> dict[str, ServiceError]:
        """As `start`, but returns why which servers could not be started."""

        def start(service: ServiceProcess) -> tuple[str, ServiceError | None]:
            try:
                service.start()
            except ServiceError as error:
                return service.name, error
            return service.name, None

        chosen = self._named(names)
        with ThreadPoolExecutor(len(chosen)) as pool:
            return {name: error for name, error in pool.map(start, chosen) if error is not None}

    def stop(self, *names: str) -> None:
        """Ends the named servers (all without a name) in order; returns when they are gone."""
        chosen = self._named(names)
        with ThreadPoolExecutor(len(chosen)) as pool:
            for stopping in [pool.submit(service.stop) for service in chosen]:
                stopping.result()

    def databases(self) -> DatabaseUrls:
        return self.mariadb.databases()

    def create_databases(self, suffix: str) -> DatabaseUrls:
        return self.mariadb.create_databases(suffix)

    def environment(self, databases: DatabaseUrls | None = None) -> dict[str, str]:
        """The variables with which the projects' processes use these servers, and these databases or the usual two."""
        urls = databases or self.databases()
        return {
            "REDIS_URL": self.redis.url(),
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "EMAIL_URL": self.smtp_sink.url(),
            "NOTIFICATION_DATABASE_URL": urls.notification,
            "EMAIL_DATABASE_URL": urls.email,
        }

    def __enter__(self) -> "Self":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _named(self, names: Sequence[str]) -> list[ServiceProcess]:
        by_name = {service.name: service for service in self.all}
        unknown = set(names) - by_name.keys()
        if unknown:
            raise ServiceError(f"no service {', '.join(sorted(unknown))}: there are {', '.join(by_name)}")
        return [by_name[name] for name in names or by_name]


def install(*others: str) -> None:
    """Installs what the servers, mysqlclient's compilation and the other programs need, and fetches Kafka's jars."""
    programs.install_packages(programs.missing_packages((*programs.SERVICE_PROGRAMS, *others), compiles=True))
    fetch_jars()


def start_compose() -> None:
    """Starts the same dependencies as containers. Raises ServiceError where no Docker engine answers."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False).returncode != 0:
        raise ServiceError("no Docker engine answers (`docker info` fails): start one, or leave --compose out")
    command = [docker, "compose", "-f", str(ROOT / "docker-compose.yml"), "up", "-d", *COMPOSE_SERVICES]
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise ServiceError(f"`{shlex.join(command)}` failed: its reason stands above")


def print_status(services: Services) -> None:
    print(f"{'name':<10} {'running':<8} {'port':>5} {'pid':>8}  log")
    for service in services.all:
        running = "frozen" if service.frozen else "yes" if service.running else "no"
        print(f"{service.name:<10} {running:<8} {service.port:>5} {service.pid or '-':>8}  {service.log_path}")


def run(options: argparse.Namespace) -> None:
    services = Services(options.dir)
    if options.command == "install" or (options.command == "start" and options.install):
        install(*(programs.CI_PROGRAMS if options.ci else ()))
    if options.command == "start" and options.compose:
        start_compose()
    elif options.command == "start":
        began = time.monotonic()
        services.start(*options.names)
        print_status(services)
        print(f"started in {time.monotonic() - began:.1f} s; `env` prints the variables, `stop` ends them")
    elif options.command == "stop":
        services.stop(*options.names)
    elif options.command == "status":
        print_status(services)
    elif options.command == "env":
        for name, value in services.environment().items():
            print(f"export {name}={shlex.quote(value)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Real MariaDB, Redis, Kafka and SMTP servers for development and tests."
    )
    parser.add_argument("command", choices=("start", "stop", "status", "env", "install"))
    parser.add_argument("names", nargs="*", help="only these: mariadb redis kafka smtp_sink (default: all)")
    parser.add_argument("--dir", type=Path, default=ROOT / ".services", help="the servers' folder (default: .services)")
    parser.add_argument("--install", action="store_true", help="with start: first install what is missing (Debian)")
    parser.add_argument("--ci", action="store_true", help="with install: also what the checks of .ci/run need")
    parser.add_argument("--compose", action="store_true", help="with start: use containers instead")
    try:
        run(parser.parse_intermixed_args())
    except (ServiceError, programs.ProgramMissingError) as error:
        sys.exit(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f"{error.filename}: {error.strerror}; name a folder with --dir that this user can write to")


if __name__ == "__main__":
    main()
