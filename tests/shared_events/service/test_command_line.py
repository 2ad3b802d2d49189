"""How a process of a project ends where it is configured wrongly: one sentence on stderr, exit code 1, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection

ROOT = Path(__file__).resolve().parents[3]
PROJECTS = ["notification_project", "email_project"]


def run(*arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "PATH": os.environ["PATH"], "SECRET_KEY": "x" * 50, "DATABASE_URL": "sqlite:////tmp/never-made.sqlite3",
        "REDIS_URL": "redis://h/0", "KAFKA_BOOTSTRAP_SERVERS": "h:1", **changed,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )


def assert_one_sentence(ended: subprocess.CompletedProcess[str], begins: str) -> None:
    assert ended.returncode == 1, ended
    assert ended.stderr.startswith(begins), ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize("project", PROJECTS)
@pytest.mark.parametrize(
    ("name", "value"), [("SECRET_KEY", ""), ("DATABASE_URL", ""), ("REDIS_URL", "x://"), ("OUTBOX_BATCH", "many")]
)
def test_a_command_names_the_variable(project: str, name: str, value: str) -> None:
    assert_one_sentence(run(f"{project}/manage.py", "check", **{name: value}), f"configuration: {name}")


@pytest.mark.parametrize("project", PROJECTS)
@pytest.mark.parametrize(("name", "value"), [("SECRET_KEY", ""), ("LOG_LEVEL", "LOUD")])
def test_a_web_server_names_the_variable(project: str, name: str, value: str) -> None:
    assert_one_sentence(run("-c", f"import {project}.wsgi", **{name: value}), f"configuration: {name}")


@pytest.mark.parametrize("project", PROJECTS)
def test_a_web_server_begins_to_serve_only_after_the_system_checks(project: str) -> None:
    ended = run("-c", f"import {project}.wsgi", OUTBOX_LEASE_SECONDS="5")
    assert ended.returncode == 1
    assert "OUTBOX_LEASE_SECONDS=5 is not above" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_refused_login_is_a_fault_of_the_configuration(db: None) -> None:
    if connection.vendor != "mysql":
        pytest.skip("SQLite has no accounts")
    own = connection.settings_dict
    url = f"mysql://nobody:wrong@{own['HOST']}:{own['PORT']}/{own['NAME']}"
    ended = run("notification_project/manage.py", "migrate", "--check", DATABASE_URL=url)
    assert_one_sentence(ended, "configuration: the database refuses DATABASE_URL's account")
    assert "wrong" not in ended.stderr
