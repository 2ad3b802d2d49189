"""The database's clock, which all workers share: deadlines and the times of outcomes go by it."""

import time
from datetime import UTC, datetime, timedelta

from django.db import connection
from django.utils import timezone

READ_EVERY_SECONDS = 60.0


class DatabaseClock:
    """The machine's clock, corrected by how far it was off the database's when that was read last. `now` is safe between threads."""

    def __init__(self) -> None:
        self._offset = timedelta()
        self._read_at = -READ_EVERY_SECONDS

    def read(self) -> None:
        """Asks the database, at most once a minute. Raises its errors."""
        if time.monotonic() - self._read_at < READ_EVERY_SECONDS:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT UTC_TIMESTAMP(6)"
                if connection.vendor == "mysql"
                else "SELECT STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW')"
            )
            value = cursor.fetchone()[0]
        instant = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        self._offset = instant.replace(tzinfo=UTC) - timezone.now()
        self._read_at = time.monotonic()

    def now(self) -> datetime:
        return timezone.now() + self._offset
