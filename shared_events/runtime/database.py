"""What a process needs to know of its database session: which errors pass, how it is set up, and when to open a new connection."""

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, OperationalError, close_old_connections, connection
from django.db.backends.base.base import BaseDatabaseWrapper

LOCK_WAIT_TIMEOUT = 1205  # InnoDB rolls back only the statement: the transaction has to be rolled back by us
DEADLOCK = 1213
MISSING_TABLE = 1146
CONNECTION_LOST = frozenset({2002, 2003, 2005, 2006, 2013, 2027, 2055, 4031, 1927})
REFUSED_LOGIN = frozenset({1044, 1045, 1049, 1698})
_PASSING = CONNECTION_LOST | {
    LOCK_WAIT_TIMEOUT,
    DEADLOCK,
    1020,  # MariaDB 11: record has changed since last read
    1021, 1114,  # disk full, as the server or InnoDB says it
    1040,  # too many connections
    1053,  # server shutdown in progress
    1158, 1159, 1160, 1161,  # the network, while reading or writing
    1290, 1836,  # read only: a failover is under way
    1317,  # query was interrupted
    1203,  # too many connections of this account
    1969, 3024,  # statement time-out
}  # fmt: skip
_NO_SPACE = "no space left on device"  # errno 28, under many a number
_PASSING_SQLITE = ("locked", "busy", "disk i/o error", "unable to open database file", "database or disk is full")


def error_number(error: BaseException) -> int | None:
    """MySQL's number of an error, None for SQLite's."""
    number = error.args[0] if error.args else None
    return number if isinstance(number, int) else None


def is_deadlock(error: BaseException) -> bool:
    return error_number(error) == DEADLOCK


def is_lock_timeout(error: BaseException) -> bool:
    return error_number(error) == LOCK_WAIT_TIMEOUT or (isinstance(error, OperationalError) and "locked" in str(error))


def is_connection_lost(error: BaseException) -> bool:
    return isinstance(error, InterfaceError) or error_number(error) in CONNECTION_LOST


def is_missing_table(error: BaseException) -> bool:
    """True where migrations have not been run."""
    return error_number(error) == MISSING_TABLE or str(error).startswith("no such table")


def is_passing(error: BaseException) -> bool:
    """True for an error of the database that waiting can mend; others are defects of ours or of the configuration."""
    if isinstance(error, InterfaceError):
        return True
    if not isinstance(error, DatabaseError):
        return False
    number = error_number(error)
    if number is not None:
        return number in _PASSING or _NO_SPACE in str(error).lower()
    return isinstance(error, OperationalError) and any(words in str(error).lower() for words in _PASSING_SQLITE)


def fresh_connections() -> None:
    """Closes connections that are broken or too old, so that the next query opens a new one. Does nothing inside a transaction."""
    if not connection.in_atomic_block:
        close_old_connections()


_asserted = False


def assert_session(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Refuses a session in which claims would lock too much or times would differ; looks at the first connection of a process.

    A receiver of Django's connection_created. Raises ImproperlyConfigured for another isolation than READ COMMITTED or another time
    zone than UTC, and the database's own errors.
    """
    global _asserted  # noqa: PLW0603 (once a process)
    if _asserted or connection.vendor != "mysql":
        return
    with connection.cursor() as cursor:
        name = "@@tx_isolation" if connection.mysql_is_mariadb else "@@transaction_isolation"  # type: ignore[attr-defined]
        cursor.execute(f"SELECT {name}, TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(6), NOW(6))")
        isolation, offset_seconds = cursor.fetchone()
    if isolation != "READ-COMMITTED":
        raise ImproperlyConfigured(
            f"the database session is {isolation}, not READ-COMMITTED: remove isolation_level from DATABASE_URL's options"
        )
    if offset_seconds != 0:
        raise ImproperlyConfigured(
            f"the database session's clock is {offset_seconds} s off UTC: remove time_zone from DATABASE_URL's options"
        )
    _asserted = True
