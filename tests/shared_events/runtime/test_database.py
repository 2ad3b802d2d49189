"""Which errors waiting can mend, and which session is refused."""

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connection,
    transaction,
)

from shared_events.runtime import database
from shared_events.runtime.database import assert_session, is_connection_lost, is_deadlock, is_lock_timeout, is_passing


@pytest.mark.fault(64)
@pytest.mark.parametrize(
    "error",
    [
        OperationalError(1205, "Lock wait timeout exceeded"),
        OperationalError(1213, "Deadlock found"),
        OperationalError(2002, "Can't connect"),
        OperationalError(2003, "Can't connect"),
        OperationalError(2006, "Server has gone away"),
        OperationalError(2013, "Lost connection during query"),
        OperationalError(1040, "Too many connections"),
        OperationalError(1053, "Server shutdown in progress"),
        OperationalError(1290, "running with the --read-only option"),
        OperationalError(1021, "Disk full"),
        OperationalError(1114, "The table 'outbox_events' is full"),
        OperationalError(1030, 'Got error 28 "No space left on device" from storage engine InnoDB'),
        InternalError(3, "Error writing file '/tmp/MYfd' (Errcode: 28 \"No space left on device\")"),
        OperationalError(1317, "Query execution was interrupted"),
        InterfaceError(0, ""),
        InterfaceError("connection already closed"),
        OperationalError("database is locked"),
        OperationalError("database table is locked: outbox_events"),
        OperationalError("disk I/O error"),
        OperationalError("unable to open database file"),
    ],
    ids=str,
)
def test_what_waiting_can_mend_passes(error: Exception) -> None:
    assert is_passing(error)


@pytest.mark.parametrize(
    "error",
    [
        ProgrammingError(1146, "Table doesn't exist"),
        ProgrammingError("database is locked, says a syntax error"),
        OperationalError(1045, "Access denied"),
        OperationalError(1049, "Unknown database"),
        OperationalError(1030, 'Got error 127 "Record file is crashed" from storage engine Aria'),
        OperationalError(1054, "Unknown column"),
        OperationalError("no such table: outbox_events"),
        IntegrityError(1062, "Duplicate entry"),
        DataError(1406, "Data too long"),
        DatabaseError("odd"),
        OperationalError(),
        ConnectionResetError(2006, "not the database's"),
        ValueError("database is locked"),
        sqlite3.OperationalError("database is locked"),
    ],
    ids=repr,
)
def test_what_waiting_cannot_mend_does_not_pass(error: Exception) -> None:
    assert not is_passing(error)


def test_deadlock_lock_timeout_and_lost_connection_are_told_apart() -> None:
    errors = [OperationalError(number, "") for number in (1213, 1205, 2013)]
    assert [is_deadlock(error) for error in errors] == [True, False, False]
    assert [is_lock_timeout(error) for error in errors] == [False, True, False]
    assert [is_connection_lost(error) for error in errors] == [False, False, True]
    assert is_lock_timeout(OperationalError("database is locked"))


@pytest.fixture
def unasserted(mariadb: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    """Sets one variable of the session and asserts it anew; the old value comes back."""
    monkeypatch.setattr(database, "_asserted", False)

    def assert_with(variable: str, value: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT @@SESSION.{variable}")
            old = cursor.fetchone()[0]
            cursor.execute(f"SET SESSION {variable} = %s", [value])
            try:
                assert_session(connection=connection)
            finally:
                cursor.execute(f"SET SESSION {variable} = %s", [old])

    return assert_with


@pytest.mark.fault(23)
def test_a_session_of_another_isolation_is_refused(unasserted: Callable[[str, Any], None]) -> None:
    with pytest.raises(ImproperlyConfigured, match="REPEATABLE-READ, not READ-COMMITTED"):
        unasserted("tx_isolation", "REPEATABLE-READ")


@pytest.mark.fault(60)
def test_a_session_of_another_time_zone_is_refused(unasserted: Callable[[str, Any], None]) -> None:
    with pytest.raises(ImproperlyConfigured, match="7200 s off UTC"):
        unasserted("time_zone", "+02:00")


@pytest.mark.fault(23)
def test_the_projects_own_session_is_accepted(mariadb: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_asserted", False)
    assert_session(connection=connection)


@pytest.mark.django_db(transaction=True)
def test_a_connection_is_never_closed_inside_a_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    monkeypatch.setattr(database, "close_old_connections", lambda: closed.append(1))
    with transaction.atomic():
        database.fresh_connections()
    assert not closed
    database.fresh_connections()
    assert closed
