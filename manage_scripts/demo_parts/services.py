"""Both services: their environments and the commands that docker-compose.yml starts, one row a process."""

import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

NOTIFICATION = "notification_project"
EMAIL = "email_project"

# What a child needs of the caller's environment. Nothing else is handed on: a KAFKA_… or DATABASE_URL of another
# installation must not lead the demo there.
HANDED_ON = (
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "VIRTUAL_ENV",
)

WORKERS = (
    (NOTIFICATION, "relay_outbox"),
    (NOTIFICATION, "consume_status"),
    (NOTIFICATION, "reconcile_notifications"),
    (EMAIL, "consume_events"),
    (EMAIL, "retry_emails"),
    (EMAIL, "relay_outbox"),
)

# Short waits, so that the whole life of a notification fits into a minute of watching.
SETTINGS = {
    "ALLOWED_HOSTS": "127.0.0.1,localhost",
    "EMAIL_RETRY_BASE_SECONDS": "1",
    "EMAIL_RETRY_MAX_SECONDS": "3",
    "RETRY_POLL_SECONDS": "0.2",
    "RECONCILE_AFTER_SECONDS": "30",
    "RECONCILE_POLL_SECONDS": "5",
    "SHUTDOWN_GRACE_SECONDS": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where the embedded parts listen: `host:port` each."""

    redis: str
    kafka: str
    smtp: str


def embedded_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in HANDED_ON if name in os.environ}


def environments(addresses: Addresses, folder: Path) -> dict[str, dict[str, str]]:
    """Each service's variables; their databases are files in `folder`."""
    return {
        project: {
            **embedded_environment(),
            **SETTINGS,
            "SECRET_KEY": secrets.token_urlsafe(50),
            "DATABASE_URL": f"sqlite:///{quote(str(folder / project))}.sqlite3",
            "REDIS_URL": f"redis://{addresses.redis}/{database}",
            "KAFKA_BOOTSTRAP_SERVERS": addresses.kafka,
            **own,
        }
        for database, (project, own) in enumerate(
            {
                NOTIFICATION: {},
                EMAIL: {
                    "EMAIL_URL": f"smtp://{addresses.smtp}",
                    "DEFAULT_FROM_EMAIL": "NotifyX <notifyx@example.com>",
                },
            }.items()
        )
    }


def manage(project: str, command: str, *arguments: str) -> list[str]:
    return [sys.executable, f"{project}/manage.py", command, *arguments]


def web(project: str, port: int) -> list[str]:
    """One worker, which is not started again when it fails: the demo shall say so instead."""
    granian = Path(sys.executable).parent / "granian"
    return [
        *(
            str(granian),
            "--interface",
            "wsgi",
            f"{project}.wsgi:application",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ),
        *("--workers", "1", "--blocking-threads", "1", "--workers-kill-timeout", "1", "--no-access-log"),
    ]
