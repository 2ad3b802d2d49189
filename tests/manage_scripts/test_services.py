import importlib
import json
import os
import smtplib
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from manage_scripts.service_parts import programs
from manage_scripts.service_parts.mariadb import OWNERS
from manage_scripts.service_parts.process import process_stat
from manage_scripts.service_parts.smtp_sink import MESSAGE_START
from manage_scripts.services import ServiceError, Services, SinkReader, read_sink

ROOT = Path(__file__).resolve().parents[2]


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    services = Services(tmp_path)
    yield services
    for service in services.all:
        service.kill()


def answers(services: Services) -> bool:
    with redis.Redis.from_url(services.redis.url(), socket_timeout=0.3) as client:
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


def send(services: Services, message_id: str, body: str = "body") -> None:
    with smtplib.SMTP("127.0.0.1", services.smtp_sink.port, timeout=5) as client:
        client.sendmail("a@example.com", ["b@example.com"], f"Message-ID: {message_id}\r\n\r\n{body}\r\n")


def test_a_started_server_answers_until_it_is_stopped(services: Services) -> None:
    services.redis.start()
    assert answers(services)

    services.redis.stop()
    assert not services.redis.running
    assert not answers(services)


def test_starting_a_running_server_leaves_it_as_it_is(services: Services) -> None:
    services.redis.start()
    pid = services.redis.pid

    services.redis.start()

    assert services.redis.pid == pid


def test_whoever_opens_the_same_folder_drives_the_same_server(services: Services) -> None:
    services.redis.start()
    others = Services(services.folder)
    assert others.redis.pid == services.redis.pid

    others.redis.stop()

    assert not services.redis.running


def test_a_killed_server_starts_again_on_its_port(services: Services) -> None:
    services.redis.start()
    port = services.redis.port

    services.redis.kill()
    assert not services.redis.running
    services.redis.start()

    assert services.redis.port == port
    assert answers(services)


def test_a_server_that_was_killed_from_outside_counts_as_gone(services: Services) -> None:
    services.redis.start()
    pid = services.redis.pid
    assert pid is not None

    os.kill(pid, 9)

    wait_until(lambda: not services.redis.running)


def test_a_frozen_server_does_not_answer_until_it_is_thawed(services: Services) -> None:
    services.redis.start()

    services.redis.freeze()
    assert services.redis.frozen
    assert services.redis.running
    assert not answers(services)

    services.redis.thaw()
    assert answers(services)


def test_a_frozen_server_can_be_stopped(services: Services) -> None:
    services.redis.start()
    services.redis.freeze()

    services.redis.stop()

    assert not services.redis.running


def test_a_pid_that_now_belongs_to_another_program_counts_as_gone(services: Services) -> None:
    own = process_stat(os.getpid())
    assert own is not None
    services.redis.folder.mkdir()
    stale = {"pid": os.getpid(), "start_ticks": own.start_ticks - 1}
    (services.redis.folder / "pid.json").write_text(json.dumps(stale))

    assert not services.redis.running
    services.redis.kill()  # must not reach this very process
    services.redis.start()
    assert answers(services)


def test_a_port_in_use_is_named_with_its_remedy(services: Services) -> None:
    sentence = rf"port {services.redis.port} .* in use.*services\.json"
    with socket.create_server(("127.0.0.1", services.redis.port)), pytest.raises(ServiceError, match=sentence):
        services.redis.start()

    services.redis.start()
    assert answers(services)


def test_a_server_that_ends_at_once_shows_the_end_of_its_log(services: Services) -> None:
    services.smtp_sink.options = ("-Z",)

    with pytest.raises(ServiceError, match=r"(?s)smtp_sink ended.*invalid option.*usage"):
        services.smtp_sink.start()


def test_a_missing_program_names_debians_package(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "SYSTEM_FOLDERS", "")
    monkeypatch.setenv("PATH", "")

    with pytest.raises(ServiceError, match="redis-server is missing: install Debian's redis-server"):
        services.redis.start()
    assert {"redis-server", "mariadb-server", "gcc"} <= set(
        programs.missing_packages(programs.SERVICE_PROGRAMS, compiles=True)
    )


def test_servers_that_can_start_do_so_beside_one_that_cannot(services: Services) -> None:
    services.smtp_sink.options = ("-Z",)

    errors = services.try_start("redis", "smtp_sink")

    assert list(errors) == ["smtp_sink"]
    assert answers(services)


def test_ports_and_passwords_are_chosen_once_and_kept_from_others(tmp_path: Path) -> None:
    first, again, other = (Services(tmp_path / name) for name in ("one", "one", "two"))

    assert first.environment() == again.environment()
    passwords = {first.state.password(f"mariadb_{owner}") for owner in OWNERS}
    assert len(passwords | {other.state.password(f"mariadb_{owner}") for owner in OWNERS}) == 4
    assert stat.S_IMODE((tmp_path / "one" / "services.json").stat().st_mode) == 0o600


def test_the_sink_lists_each_mail_that_it_took_also_over_a_restart(services: Services) -> None:
    services.smtp_sink.start()
    reader = SinkReader(services.smtp_sink.dump_path)
    send(services, "<one@example.com>", "Message-ID: <body@example.com>")
    assert reader.read_new() == ["<one@example.com>"]

    services.smtp_sink.kill()
    services.smtp_sink.start()
    send(services, "<two@example.com>")

    assert reader.read_new() == ["<two@example.com>"]
    assert read_sink(services.smtp_sink.dump_path) == ["<one@example.com>", "<two@example.com>"]


def test_a_wiped_sink_has_no_mails_and_a_running_one_is_not_wiped(services: Services) -> None:
    services.smtp_sink.start()
    send(services, "<one@example.com>")
    with pytest.raises(ServiceError, match="is running"):
        services.smtp_sink.wipe()

    services.smtp_sink.stop()
    services.smtp_sink.wipe()

    assert read_sink(services.smtp_sink.dump_path) == []


def test_a_mail_of_which_a_part_is_in_the_file_comes_with_a_later_call(tmp_path: Path) -> None:
    path = tmp_path / "mails"
    whole = MESSAGE_START + b"X-Client-Addr: 127.0.0.1\nmessage-id:\n <folded@example.com>\n\nbody\n\n"
    reader = SinkReader(path)
    found = []
    for end in range(len(whole) + 1):
        path.write_bytes(MESSAGE_START + b"Subject: no id\n\nbody\n\n" + whole[:end])
        found += reader.read_new()

    assert found == ["", "<folded@example.com>"]


def test_each_account_owns_its_own_database_only(services: Services) -> None:
    services.mariadb.start()
    urls = [*services.databases(), *services.create_databases("second")]
    for url in urls:
        account, _, place = url.removeprefix("mysql://").partition("@")
        user, _, password = account.partition(":")
        database = place.partition("/")[2]
        connection = importlib.import_module("MySQLdb").connect(
            host="127.0.0.1", port=services.mariadb.port, user=user, password=password, database=database
        )
        cursor = connection.cursor()
        cursor.execute("SHOW DATABASES")
        assert {name for (name,) in cursor.fetchall()} == {database, "information_schema"}
        cursor.execute(f"CREATE DATABASE test_{database}")  # as Django's test runner does
        cursor.execute(f"DROP DATABASE test_{database}")
        connection.close()

    services.mariadb.kill()
    services.mariadb.wipe()
    services.mariadb.start()
    assert "second" not in services.mariadb.execute("SHOW DATABASES")


def test_the_command_starts_shows_and_stops_a_server(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, str(ROOT / "manage_scripts" / "services.py"), *arguments, "--dir", str(tmp_path)]
        return subprocess.run(command, cwd="/", capture_output=True, text=True, check=True, timeout=60).stdout

    run("start", "redis")
    services = Services(tmp_path)
    try:
        assert answers(services)
        assert f"export REDIS_URL=redis://127.0.0.1:{services.redis.port}/0" in run("env")
        status = {line.split()[0]: line.split()[1:4] for line in run("status").splitlines()[1:]}
        assert status["redis"] == ["yes", str(services.redis.port), str(services.redis.pid)]
        assert status["kafka"][0] == "no"
    finally:
        run("stop")
    assert not answers(services)


def test_a_folder_that_cannot_be_written_to_is_told_in_one_sentence() -> None:
    command = [sys.executable, str(ROOT / "manage_scripts" / "services.py"), "start", "--dir", "/dev/null/x"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("/dev/null/x")
    assert ended.stderr.endswith("name a folder with --dir that this user can write to\n")
    assert ended.stderr.count("\n") == 1
