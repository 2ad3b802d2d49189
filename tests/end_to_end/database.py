"""The rows, seen past the product."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import MySQLdb


def query(url: str, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """One statement on a connection of its own, committed."""
    parts = urlsplit(url)
    connection = MySQLdb.connect(
        host=parts.hostname,
        port=parts.port,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=parts.path[1:],
        autocommit=True,
    )
    try:
        cursor = connection.cursor()
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())
    finally:
        connection.close()  # type: ignore[no-untyped-call]
