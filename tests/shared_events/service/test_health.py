"""`/health/live` touches nothing; `/health/ready` tells what answers."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from pytest_django import Settings


@pytest.fixture
def kafka(settings: Settings) -> Iterator[None]:
    """Something that listens where Kafka should."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings.KAFKA = {**settings.KAFKA, "bootstrap.servers": f"127.0.0.1:{listening.getsockname()[1]}"}
        yield


@pytest.fixture
def database_away(db: None, monkeypatch: pytest.MonkeyPatch, closed_port: int, tmp_path: Path) -> None:
    if connection.vendor == "mysql":
        monkeypatch.setitem(connection.settings_dict, "PORT", closed_port)
    else:
        monkeypatch.setitem(connection.settings_dict, "NAME", str(tmp_path / "no folder" / "n.sqlite3"))


def ready() -> Any:
    return Client().get("/health/ready", headers={"Authorization": "Bearer wrong", "Host": "testserver"})


def test_live_answers_without_the_database_and_without_credentials() -> None:
    response = Client().get(
        "/health/live", headers={"Authorization": "Bearer wrong"}
    )  # no database is allowed in this test
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.django_db
def test_ready_is_ok_where_everything_answers(kafka: None) -> None:
    response = ready()
    assert (response.status_code, response.json()) == (
        200, {"status": "ok", "database": "ok", "redis": "ok", "kafka": "ok", "workers": []},
    )  # fmt: skip


@pytest.mark.django_db
def test_ready_is_degraded_without_redis(kafka: None, settings: Settings, closed_port: int) -> None:
    settings.REDIS_URL = f"redis://127.0.0.1:{closed_port}/0"
    response = ready()
    assert (response.status_code, response.json()) == (
        200, {"status": "degraded", "database": "ok", "redis": "away", "kafka": "ok", "workers": []},
    )  # fmt: skip


@pytest.mark.django_db
def test_ready_is_degraded_without_kafka(settings: Settings, closed_port: int) -> None:
    settings.KAFKA = {"bootstrap.servers": f"127.0.0.1:{closed_port},PLAINTEXT://127.0.0.1:{closed_port}, nonsense"}
    response = ready()
    assert (response.status_code, response.json()["status"], response.json()["kafka"]) == (200, "degraded", "away")


@pytest.mark.django_db
def test_one_of_several_brokers_is_enough(kafka: None, settings: Settings, closed_port: int) -> None:
    own = settings.KAFKA["bootstrap.servers"]
    settings.KAFKA = {"bootstrap.servers": f"127.0.0.1:{closed_port},{own}"}
    assert ready().json()["kafka"] == "ok"


@pytest.mark.django_db
def test_silent_dependencies_are_given_up_soon(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.REDIS_URL = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        began = time.monotonic()
        assert ready().json()["redis"] == "away"
        assert time.monotonic() - began < 2


def test_ready_is_503_without_the_database_within_two_seconds(database_away: None) -> None:
    began = time.monotonic()
    response = ready()
    assert time.monotonic() - began < 2
    assert (response.status_code, response["Content-Type"]) == (503, "application/problem+json")
    assert response.json()["code"] == "database-unavailable"
    assert response["Retry-After"] == "2"


def test_a_silent_database_is_given_up_within_two_seconds(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor != "mysql":
        pytest.skip("SQLite is a file")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setitem(connection.settings_dict, "PORT", silent.getsockname()[1])
        began = time.monotonic()
        assert ready().status_code == 503
        assert time.monotonic() - began < 2


def test_ready_leaves_the_requests_own_connection_alone(db: None, kafka: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    before = connection.connection
    ready()
    assert connection.connection is before
    assert connection.is_usable()
