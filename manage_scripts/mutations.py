"""Breaks each rule of delivery and demands a red test: `python3 manage_scripts/mutations.py [--only NAME] [--services DIR]`.

`tests/mutations/NN-name.patch` is a sentence that says which rule it breaks, the tests that must turn red (`Red:`), the
settings they run with (`Settings: notification|email`), and a diff of product code. The tests run on a copy of the tree,
against MariaDB and Redis: green without the patch, red with it. The exit code is 1 where one stays green.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from manage_scripts.bootstrap import ROOT, ensure_environment
from manage_scripts.pytest_groups import select_groups
from manage_scripts.service_parts import programs
from manage_scripts.service_parts.process import ServiceError
from manage_scripts.services import Services
from manage_scripts.test import end_on_signal, environment_for

PATCHES = ROOT / "tests" / "mutations"
SERVICE_NAMES = ("mariadb", "redis")
SETTINGS = ("notification", "email")
RUN_SECONDS = 120
PASSED, FAILED = 0, 1  # pytest's exit codes; any other is no verdict on the code

_FAILED = re.compile(r"\b\d+ failed\b")
_HEAD = re.compile(r"(?P<rule>.+?)\n\nRed: (?P<red>.+?)\nSettings: (?P<settings>\w+)\n", re.DOTALL)


class MutationError(Exception):
    """Something that says nothing about the tests: one sentence with the remedy."""


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A patch; `tests` are pytest's ids or files of what must turn red."""

    path: Path
    rule: str
    tests: tuple[str, ...]
    settings: str

    @classmethod
    def read(cls, path: Path) -> "Mutation":
        """MutationError for a file whose head is incomplete."""
        head = _HEAD.match(path.read_text())
        if head is None or head["settings"] not in SETTINGS:
            raise MutationError(
                f"{path.name} must begin with a sentence, an empty line, `Red: TESTS` and `Settings: {'|'.join(SETTINGS)}`"
            )
        rule = " ".join(head["rule"].split())
        return cls(path=path, rule=rule, tests=tuple(head["red"].split()), settings=head["settings"])

    @property
    def name(self) -> str:
        return self.path.stem


@dataclass(frozen=True)
class Verdict:
    """`reason` is the first line of the failure, so that a reader sees whether the test is red for the rule's sake."""

    mutation: Mutation
    is_red: bool
    seconds: float
    reason: str = ""


def read_mutations(folder: Path = PATCHES, *, only: str | None = None) -> list[Mutation]:
    return [Mutation.read(path) for path in sorted(folder.glob("*.patch")) if only is None or only in path.stem]


def copy_tree(target: Path, root: Path = ROOT) -> Path:
    """What git knows or would take, so that a change can be tried before it is committed; neither .venv nor leftovers."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise MutationError(f"{root} is no git checkout ({listed.stderr.strip()}): run this in a clone")
    for name in filter(None, listed.stdout.split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)
    return target


def apply(patch: Path, tree: Path, *options: str) -> None:
    applied = subprocess.run(["git", "apply", *options, patch], cwd=tree, capture_output=True, text=True, check=False)
    if applied.returncode:
        raise MutationError(f"{patch.name} does not apply: rebase it ({applied.stderr.strip()})")


@contextmanager
def broken(tree: Path, mutation: Mutation) -> Iterator[None]:
    apply(mutation.path, tree)
    try:
        yield
    finally:
        apply(mutation.path, tree, "--reverse")


class Runner:
    """Runs tests in one tree, with the options of one group of tests. Blocks up to two minutes a run."""

    def __init__(self, tree: Path, options: Sequence[str], environment: dict[str, str]) -> None:
        self._tree = tree
        self._options = (*options, "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly")
        self._environment = {
            **environment,
            "PYTHONPATH": str(tree),
            "PYTHONDONTWRITEBYTECODE": "1",  # a patched file may have its former size and second
        }

    def run(self, tests: Sequence[str]) -> tuple[int, str]:
        """Pytest's exit code, and what it printed."""
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "pytest", *self._options, *tests],
                cwd=self._tree,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=RUN_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise MutationError(f"{' '.join(tests)}: no verdict within {RUN_SECONDS} s") from error
        return ended.returncode, ended.stdout

    def demand_green(self, tests: Sequence[str]) -> None:
        code, output = self.run(tests)
        if code != PASSED:
            raise MutationError(f"not green without any mutation, so red would prove nothing:\n{output}")

    def judge(self, mutation: Mutation) -> Verdict:
        """Whether each of the tests turns red. MutationError where one ends otherwise, as with a file that cannot be imported."""
        began = time.monotonic()
        with broken(self._tree, mutation):
            ended = [self.run([test]) for test in mutation.tests]
        for code, output in ended:
            if code not in (PASSED, FAILED) or (code == FAILED and _FAILED.search(output) is None):
                raise MutationError(
                    f"{mutation.name}: pytest ended with exit code {code} and no failed test, which is no verdict:\n{output}"
                )
        lines = [line for _, output in ended for line in output.splitlines()]
        reason = next((line[1:].strip() for line in lines if line.startswith("E ")), "")
        return Verdict(mutation, all(code == FAILED for code, _ in ended), time.monotonic() - began, reason)


def judge_all(mutations: Sequence[Mutation], runner: Runner) -> list[Verdict]:
    """First all the tests on the unbroken tree, then each mutation alone."""
    runner.demand_green(sorted({test for mutation in mutations for test in mutation.tests}))
    verdicts = []
    for mutation in mutations:
        verdicts.append(runner.judge(mutation))
        print(f"=== {mutation.name}: {'red' if verdicts[-1].is_red else 'GREEN'}", flush=True)
    return verdicts


def run(mutations: Sequence[Mutation], services: Services, scratch: Path) -> list[Verdict]:
    """Both settings at the same time, each with a tree and a database of its own; in the mutations' order."""

    def judge_settings(settings: str) -> list[Verdict]:
        group = select_groups(f"unit {settings} mariadb", fast=True)[0]
        tree = copy_tree(scratch / settings)
        environment = environment_for(group, services, SERVICE_NAMES, scratch)
        own = [mutation for mutation in mutations if mutation.settings == settings]
        return judge_all(own, Runner(tree, group.arguments, environment))

    chosen = [settings for settings in SETTINGS if any(mutation.settings == settings for mutation in mutations)]
    with ThreadPoolExecutor(len(SETTINGS)) as pool:
        verdicts = [verdict for found in pool.map(judge_settings, chosen) for verdict in found]
    return sorted(verdicts, key=lambda verdict: verdict.mutation.name)


@contextmanager
def running_services(folder: Path | None) -> Iterator[Services]:
    """MariaDB and Redis. Those of a given folder are left running."""
    with tempfile.TemporaryDirectory(prefix="notifyx-mutations-") as temporary:
        services = Services(folder or Path(temporary))
        try:
            services.start(*SERVICE_NAMES)
            yield services
        finally:
            if folder is None:
                services.stop()


def table(verdicts: Sequence[Verdict]) -> list[str]:
    """The table's lines and, last, how many rules no test would miss."""
    lines = []
    for verdict in verdicts:
        mutation, word = verdict.mutation, "red" if verdict.is_red else "GREEN"
        lines.append(f"{word:<5} {verdict.seconds:>5.1f} s  {mutation.name}: {mutation.rule}")
        lines += [f"{'':16}{line}" for line in (*mutation.tests, verdict.reason) if line]
    red = sum(verdict.is_red for verdict in verdicts)
    return [*lines, "", f"{red} of {len(verdicts)} mutations turn their tests red"]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Breaks each rule of delivery and demands a red test.")
    parser.add_argument("--only", metavar="NAME", help="those whose file name contains it")
    parser.add_argument("--services", type=Path, metavar="DIR", help="use this folder's services, leave them running")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse(sys.argv[1:])
    missing = programs.missing_packages(programs.SERVICE_PROGRAMS, compiles=True)
    if missing and programs.may_install():
        programs.install_packages(missing)
    ensure_environment("dev")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end_on_signal)
    try:
        mutations = read_mutations(only=options.only)
        if not mutations:
            raise MutationError(f"--only {options.only}: no file of {PATCHES.name} has that in its name")
        with running_services(options.services) as services, tempfile.TemporaryDirectory(prefix="notifyx-") as scratch:
            verdicts = run(mutations, services, Path(scratch))
    except (MutationError, ServiceError, programs.ProgramMissingError) as error:
        sys.exit(str(error))
    print("\n".join(table(verdicts)), flush=True)
    sys.exit(0 if all(verdict.is_red for verdict in verdicts) else 1)


if __name__ == "__main__":
    main()
