"""Runs every test against real servers: `python3 manage_scripts/test.py [--fast] [--only GROUP] [-- PYTEST_ARGS]`.

Installs what is missing (Debian's packages only where it may), starts MariaDB, Redis, Kafka and an SMTP sink in a
temporary folder, and runs the groups of tests. The last line is `N passed, N failed, N skipped`; the exit code is 0
only if nothing failed.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import os
import secrets
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from manage_scripts.bootstrap import ROOT, ensure_environment
from manage_scripts.pytest_groups import GROUPS, Group, GroupResult, PytestRuns, select_groups
from manage_scripts.service_parts import programs
from manage_scripts.service_parts.process import ServiceError
from manage_scripts.services import Services

SERVICE_NAMES = ("mariadb", "redis", "kafka", "smtp_sink")


def summary(results: Sequence[GroupResult]) -> list[str]:
    """The table's lines and, last, `N passed, N failed, N skipped`."""
    width = max([len(result.group) for result in results] or [0])
    lines = [f"{'group':<{width}}  passed  failed  skipped  seconds"]
    lines += [
        f"{result.group:<{width}}  {result.passed:>6}  {result.failed:>6}  {result.skipped:>7}  {result.seconds:>7.1f}"
        for result in results
    ]
    passed, failed, skipped = (
        sum(getattr(result, column) for result in results) for column in ("passed", "failed", "skipped")
    )
    return [*lines, "", f"{passed} passed, {failed} failed, {skipped} skipped"]


def install_programs() -> None:
    """Installs what is missing where this user may; else the services say later which of them cannot start."""
    missing = programs.missing_packages(programs.SERVICE_PROGRAMS, compiles=True)
    if missing and programs.may_install():
        programs.install_packages(missing)


@contextmanager
def services_for_tests(folder: Path | None) -> Iterator[tuple[Services, dict[str, ServiceError]]]:
    """The running services and why others could not be started. Those of a given folder are left running."""
    if folder is not None:
        services = Services(folder)
        yield services, services.try_start()
        return
    with tempfile.TemporaryDirectory(prefix="notifyx-tests-") as temporary:
        services = Services(Path(temporary))
        try:
            yield services, services.try_start()
        finally:
            services.stop()


def environment_for(group: Group, services: Services, running: Sequence[str], scratch: Path) -> dict[str, str]:
    """A group has a Redis database and SQLite files of its own, so that two groups can run at the same time."""
    environment = {**os.environ, **services.environment()}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment["NOTIFYX_SERVICES_DIR"] = str(services.folder)
    environment["NOTIFYX_SERVICES_RUNNING"] = ",".join(running)
    environment["SECRET_KEY"] = secrets.token_urlsafe(48)
    environment["DEFAULT_FROM_EMAIL"] = "notifyx@example.com"
    environment["REDIS_URL"] = services.redis.url(group.redis_database)
    if group.database == "sqlite":
        environment["DATABASE_URL"] = f"sqlite:///{scratch / group.name.replace(' ', '_')}.sqlite3"
    elif group.database is not None:
        environment["DATABASE_URL"] = environment[group.database]
    return environment


def run_groups(options: argparse.Namespace) -> tuple[list[GroupResult], list[str]]:
    """The results, and a sentence for each thing that was left out."""
    groups = [group for group in select_groups(options.only, fast=options.fast) if group.paths(ROOT)]
    with services_for_tests(options.services) as (services, errors):
        running = [name for name in SERVICE_NAMES if name not in errors]
        possible = [group for group in groups if not set(group.needs) - set(running)]
        left_out = [f"{name} could not be had: {error}" for name, error in errors.items()]
        left_out += [f"group left out: {group.name}" for group in groups if group not in possible]
        for sentence in left_out:
            print(f"WARNING: {sentence}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="notifyx-results-") as temporary:
            scratch = Path(temporary)
            environments = {group: environment_for(group, services, running, scratch) for group in possible}
            runs = PytestRuns(ROOT, scratch, options.pytest_arguments)
            together = [group for group in possible if not group.alone]
            results = runs.run_pairwise(together, [environments[group] for group in together])
            results += [runs.run(group, environments[group]) for group in possible if group.alone]
    return results, left_out


def end_on_signal(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # an exception, so that the services are stopped on the way out


def parse(arguments: list[str]) -> argparse.Namespace:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        description="Runs the tests against real servers.", epilog="After --: pytest's own."
    )
    parser.add_argument("--fast", action="store_true", help="leave end_to_end out")
    parser.add_argument("--only", metavar="GROUP", help=f"one group: {', '.join(group.name for group in GROUPS)}")
    parser.add_argument("--services", type=Path, metavar="DIR", help="use this folder's services, leave them running")
    options = parser.parse_args(arguments[:end])
    options.pytest_arguments = arguments[end + 1 :]
    if options.only is not None and not select_groups(options.only, fast=False):
        parser.error(f"--only {options.only!r}: the groups are {', '.join(group.name for group in GROUPS)}")
    return options


def main() -> None:
    options = parse(sys.argv[1:])
    try:
        install_programs()
    except programs.ProgramMissingError as error:
        sys.exit(str(error))
    ensure_environment("dev")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end_on_signal)
    results, left_out = run_groups(options)
    incomplete = bool(left_out) and os.environ.get("CI") == "true"
    if incomplete:
        print("CI=true: what was left out (above) counts as a failure", file=sys.stderr)
    print("\n".join(summary(results)), flush=True)
    sys.exit(1 if incomplete or not results or any(result.failed for result in results) else 0)


if __name__ == "__main__":
    main()
