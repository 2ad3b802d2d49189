"""What the e-mail service's tests share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from tests.email_project.senders import Sending
from tests.smtp_servers import Script, ScriptedSmtpServer


@pytest.fixture
def mariadb(db: None) -> None:
    if connection.vendor != "mysql":
        pytest.skip("row locks and several writers at once are MariaDB's: SQLite locks the file")


@pytest.fixture
def server() -> Iterator[ScriptedSmtpServer]:
    with ScriptedSmtpServer() as running:
        yield running


@pytest.fixture
def start(server: ScriptedSmtpServer) -> Iterator[Callable[..., Sending]]:
    """Starts senders on `server`; each is closed at the end."""
    started: list[Sending] = []

    def start_one(**options: Any) -> Sending:
        started.append(Sending(**{"port": server.port, **options}).start())
        return started[-1]

    yield start_one
    server.script = Script()
    server.reset_connections()
    for sending in started:
        sending.close()
