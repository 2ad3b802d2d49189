"""The groups of tests: one pytest process each, as a process can hold one Django settings module only."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

AT_THE_SAME_TIME = 2
WITHOUT_DJANGO = ("-p", "no:django")


@dataclass(frozen=True, kw_only=True)
class Group:
    """`database` is "sqlite", the name of the variable with a MariaDB URL, or None; `needs` names services."""

    name: str
    directories: tuple[str, ...]
    arguments: tuple[str, ...]
    database: str | None = None
    needs: tuple[str, ...] = ("redis",)
    redis_database: int = 0
    alone: bool = False

    def paths(self, root: Path) -> list[str]:
        return [directory for directory in self.directories if (root / directory).is_dir()]


_NOTIFICATION = ("tests/notification_project", "tests/shared_events")
_EMAIL = ("tests/email_project",)
_NOTIFICATION_SETTINGS = ("--ds=tests.settings.notification",)
_EMAIL_SETTINGS = ("--ds=tests.settings.email",)

GROUPS = (
    Group(
        name="unit notification sqlite",
        directories=_NOTIFICATION,
        arguments=_NOTIFICATION_SETTINGS,
        database="sqlite",
        redis_database=1,
    ),
    Group(
        name="unit notification mariadb",
        directories=_NOTIFICATION,
        arguments=_NOTIFICATION_SETTINGS,
        database="NOTIFICATION_DATABASE_URL",
        needs=("redis", "mariadb"),
        redis_database=2,
    ),
    Group(
        name="unit email sqlite",
        directories=_EMAIL,
        arguments=_EMAIL_SETTINGS,
        database="sqlite",
        redis_database=3,
    ),
    Group(
        name="unit email mariadb",
        directories=_EMAIL,
        arguments=_EMAIL_SETTINGS,
        database="EMAIL_DATABASE_URL",
        needs=("redis", "mariadb"),
        redis_database=4,
    ),
    Group(
        name="manage_scripts",
        directories=("tests/manage_scripts",),
        arguments=WITHOUT_DJANGO,
        needs=(),
        redis_database=5,
    ),
    Group(
        name="end_to_end",
        directories=("tests/end_to_end",),
        arguments=(*WITHOUT_DJANGO, "-p", "no:randomly", "-p", "no:xdist"),
        needs=("mariadb", "redis", "kafka", "smtp_sink"),
        alone=True,
    ),
)


def select_groups(only: str | None, *, fast: bool) -> list[Group]:
    return [group for group in GROUPS if only in {None, group.name} and not (fast and group.alone)]


@dataclass(frozen=True)
class GroupResult:
    group: str
    passed: int
    failed: int
    skipped: int
    seconds: float


class PytestRuns:
    """Starts pytest processes, and ends those that still run when the caller is interrupted."""

    def __init__(self, root: Path, results: Path, pytest_arguments: Sequence[str]) -> None:
        self._root = root
        self._results = results
        self._pytest_arguments = pytest_arguments
        self._processes: set[subprocess.Popen[bytes]] = set()

    def run_pairwise(self, groups: Sequence[Group], environments: Sequence[dict[str, str]]) -> list[GroupResult]:
        """Runs the groups, two at a time, and prints each one's output when it has ended. In the groups' order."""
        pool = ThreadPoolExecutor(AT_THE_SAME_TIME)
        try:
            return list(pool.map(self.run, groups, environments))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in tuple(self._processes):
                process.terminate()
            raise
        finally:
            pool.shutdown()

    def run(self, group: Group, environment: dict[str, str]) -> GroupResult:
        """Blocks until the group's pytest process has ended. What runs alone is shown as it comes."""
        stem = group.name.replace(" ", "_")
        report, log_path = self._results / f"{stem}.xml", self._results / f"{stem}.log"
        command = [sys.executable, "-m", "pytest", *group.arguments, *group.paths(self._root)]
        command += [f"--junitxml={report}", *self._pytest_arguments]
        began = time.monotonic()
        print(f"=== {group.name}: started", flush=True)
        if group.alone:
            exit_code = self._wait(subprocess.Popen(command, cwd=self._root, env=environment))
        else:
            with log_path.open("wb") as log:
                exit_code = self._wait(
                    subprocess.Popen(command, cwd=self._root, env=environment, stdout=log, stderr=subprocess.STDOUT)
                )
            print(f"=== {group.name}\n{log_path.read_text(errors='replace')}", flush=True)
        return count(group.name, report, exit_code, time.monotonic() - began)

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        self._processes.add(process)
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            self._processes.discard(process)


def count(group: str, report: Path, exit_code: int, seconds: float) -> GroupResult:
    """Counts a pytest process's tests. One that ended without a result (nothing collected, a crash) is a failure."""
    passed = failed = skipped = 0
    try:
        suites = list(ET.parse(report).getroot().iter("testsuite"))
    except (OSError, ET.ParseError):
        suites = []
    for suite in suites:
        total, broken, left_out = (
            int(suite.get("tests", 0)),
            int(suite.get("failures", 0)) + int(suite.get("errors", 0)),
            int(suite.get("skipped", 0)),
        )
        failed += broken
        skipped += left_out
        passed += max(0, total - broken - left_out)
    if exit_code != 0 and failed == 0:
        print(f"=== {group}: pytest ended with exit code {exit_code} and no failed test: counted as one failure")
        failed = 1
    return GroupResult(group, passed, failed, skipped, seconds)
