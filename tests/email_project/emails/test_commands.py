"""The commands as processes: what they say of themselves, and how they end where they are not configured."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = ("consume_events", "retry_emails", "relay_outbox")


def run(command: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {
        **os.environ,
        "SECRET_KEY": "a key for tests alone, of more than fifty characters, really",
        "DATABASE_URL": "sqlite://:memory:",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "EMAIL_URL": "smtp://127.0.0.1:1",
        "DEFAULT_FROM_EMAIL": "noreply@example.com",
        **variables,
    }
    line = [sys.executable, "email_project/manage.py", command, *arguments]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_it_does_how_it_ends_and_what_configures_it(command: str) -> None:
    done = run(command, "--help")
    words = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stderr
    assert "until SIGTERM or SIGINT" in words
    assert "Configured by" in words


@pytest.mark.parametrize("command", ["consume_events", "retry_emails"])
@pytest.mark.parametrize("name", ["EMAIL_URL", "DEFAULT_FROM_EMAIL"])
def test_a_worker_without_its_variable_ends_with_one_sentence(command: str, name: str) -> None:
    done = run(command, **{name: ""})
    assert done.returncode == 1
    assert (
        done.stderr.strip() == f"configuration: {name} is not set: a worker that sends mail needs it, see .env.example"
    )


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"EMAIL_URL": "relay.test:25"}, "EMAIL_URL: an SMTP URL begins with one of smtp://"),
        ({"EMAIL_RETRY_BASE_SECONDS": "soon"}, "EMAIL_RETRY_BASE_SECONDS='soon' is no number of seconds"),
        ({"EMAIL_RETRY_BASE_SECONDS": "4000"}, "EMAIL_RETRY_BASE_SECONDS=4000 is above EMAIL_RETRY_MAX_SECONDS=3600"),
        ({"DATABASE_URL": ""}, "DATABASE_URL is not set"),
        ({"SECRET_KEY": ""}, "SECRET_KEY is not set"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_named_with_its_value_and_its_remedy(variables: dict[str, str], words: str) -> None:
    done = run("retry_emails", **variables)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
