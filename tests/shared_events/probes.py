"""What tests of several layers look through: statements and commits counted, conditions waited for, ports where nobody listens."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any
from unittest.mock import patch

from django.core.management import call_command
from django.db import connection

UNCOUNTED = ("SAVEPOINT", "RELEASE SAVEPOINT", "ROLLBACK TO SAVEPOINT", "BEGIN", "SET ")


def wait_until(holds: Callable[[], object], *, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def closed_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


class Clock:
    """A monotonic clock that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


class Sql:
    """What this thread's connection was asked: statements (but for BEGIN, SET, and the test case's savepoints) and commits."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.commits = 0

    def of(self, *verbs: str) -> list[str]:
        return [sql for sql in self.statements if sql.startswith(verbs)]


@contextmanager
def counted_sql() -> Iterator[Sql]:
    """Commits are seen in tests with `transaction=True` alone: within another transaction there are none."""
    counted = Sql()

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not sql.startswith(UNCOUNTED):
            counted.statements.append(sql)
        return execute(sql, params, many, context)

    def commit() -> None:
        counted.commits += 1
        really_commit()

    really_commit = connection._commit  # type: ignore[attr-defined]
    with connection.execute_wrapper(note), patch.object(connection, "_commit", commit):
        yield counted


def consistency_table() -> tuple[int, dict[str, str]]:
    """The exit code of `check_consistency`, and what stands behind each of its sentences."""
    out = StringIO()
    code = 0
    try:
        call_command("check_consistency", stdout=out, stderr=StringIO())
    except SystemExit as end:
        code = int(str(end.code))
    return code, {line[:72].strip(): line[72:].strip() for line in out.getvalue().splitlines()}
