"""What the tests of the shared layers have in common."""

import pytest
from django.db import connection


@pytest.fixture
def mariadb(db: None) -> None:
    if connection.vendor != "mysql":
        pytest.skip("row locks, plans and several writers at once are MariaDB's: SQLite locks the file")
