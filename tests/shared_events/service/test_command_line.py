"""How a process of a project ends where it is configured wrongly: one sentence on stderr, exit code 1, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import DatabaseError, connection

from shared_events.service import command_line
from tests.shared_events.probes import closed_port

ROOT = Path(__file__).resolve().parents[3]
PROJECTS = ["notification_project", "email_project"]


FROM_A_COMMAND = """
import os, signal, sys
from django.core import management
from shared_events.service import command_line

def command(argv):
    {body}

management.execute_from_command_line = command
command_line.run("notification_project.settings")
"""
PRINTS_WITHOUT_END = FROM_A_COMMAND.format(
    body="read, write = os.pipe(); os.close(read); os.dup2(write, 1); print('x' * 1_000_000, flush=True)"
)
INTERRUPTS_ITSELF = FROM_A_COMMAND.format(body="signal.raise_signal(signal.SIGINT)")


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


@pytest.mark.parametrize("project", PROJECTS)
@pytest.mark.parametrize("command", ["check_consistency", "prune", "replay_dead_letters --all --dry-run"])
def test_a_database_that_is_not_there_is_told_in_one_sentence(project: str, command: str) -> None:
    ended = run(f"{project}/manage.py", *command.split(), DATABASE_URL=f"mysql://u:secret@127.0.0.1:{closed_port()}/d")
    assert_one_sentence(ended, "the database of DATABASE_URL cannot be reached (Can't connect to")
    assert "secret" not in ended.stderr


@pytest.mark.parametrize("project", PROJECTS)
def test_a_path_that_does_not_exist_is_told_in_one_sentence(project: str) -> None:
    ended = run(f"{project}/manage.py", "check_consistency", DATABASE_URL="sqlite:////nonexistent/x.sqlite3")
    assert_one_sentence(ended, "the database of DATABASE_URL cannot be reached (unable to open database file)")


@pytest.mark.parametrize("project", PROJECTS)
@pytest.mark.parametrize("command", ["check_consistency", "relay_outbox --republish-since 2030-01-31T12:00:00Z"])
def test_a_database_without_tables_is_told_in_one_sentence(project: str, command: str, tmp_path: Path) -> None:
    ended = run(f"{project}/manage.py", *command.split(), DATABASE_URL=f"sqlite:///{tmp_path}/empty.sqlite3")
    assert_one_sentence(ended, "the database of DATABASE_URL is not set up (no such table: ")


def test_on_mysql_too(db: None) -> None:
    if connection.vendor != "mysql":
        pytest.skip("SQLite's is tested by itself")
    assert command_line._sentence(missing_table_error()).startswith(
        "the database of DATABASE_URL is not set up (Table "
    )


def missing_table_error() -> DatabaseError:
    with pytest.raises(DatabaseError) as raised, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM no_such_table_here")
    return raised.value


def test_a_reader_who_wants_no_more_is_no_error() -> None:
    ended = run("-c", PRINTS_WITHOUT_END)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_a_connection_that_breaks_is_a_defect_with_its_traceback() -> None:
    ended = run("-c", FROM_A_COMMAND.format(body="raise BrokenPipeError('a socket')"))
    assert ended.returncode == 1
    assert ended.stderr.endswith("BrokenPipeError: a socket\n")


def test_ctrl_c_ends_a_command_without_a_traceback() -> None:
    ended = run("-c", INTERRUPTS_ITSELF)
    assert (ended.returncode, ended.stderr) == (130, "")


def test_a_refused_login_is_a_fault_of_the_configuration(db: None) -> None:
    if connection.vendor != "mysql":
        pytest.skip("SQLite has no accounts")
    own = connection.settings_dict
    url = f"mysql://nobody:wrong@{own['HOST']}:{own['PORT']}/{own['NAME']}"
    ended = run("notification_project/manage.py", "migrate", "--check", DATABASE_URL=url)
    assert_one_sentence(ended, "configuration: the database refuses DATABASE_URL's account")
    assert "wrong" not in ended.stderr
