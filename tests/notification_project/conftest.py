"""What the notification service's tests share: clean Redis keys, a client of the API, and counters at the process's edges."""

import copy
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import msgspec
import pytest
import redis
from django.conf import settings as django_settings
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from pytest_django import Settings
from redis.connection import AbstractConnection

from notification_project.notifications import views
from notification_project.notifications.authentication import create_key
from notification_project.notifications.idempotency import KeyStore, redis_breaker
from notification_project.notifications.models import ApiClient
from notification_project.notifications.submission import Acceptance
from shared_events.outbox.wakeup import WakeUp

from .factories import ApiClientFactory

URL = "/api/v1/notifications"
SAVEPOINTS = ("SAVEPOINT", "RELEASE SAVEPOINT", "ROLLBACK TO SAVEPOINT")


class Api:
    """Speaks to the API as one client, with a key of all scopes unless `key` says otherwise."""

    def __init__(self, client: ApiClient, key: str | None) -> None:
        self.client = client
        self.key = key
        self.http = Client(raise_request_exception=False)

    def request(self, method: str, path: str, data: Any = "", **options: Any) -> Any:
        headers = {"Accept": "application/json", **options.pop("headers", {})}
        if self.key is not None:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        content_type = options.pop("content_type", "application/json")
        return self.http.generic(method, path, data, content_type=content_type, headers=headers, **options)

    def get(self, path: str = URL, **options: Any) -> Any:
        return self.request("GET", path, **options)

    def post(self, body: Any, *, path: str = URL, key: str | None = None, **options: Any) -> Any:
        """POSTs `body` as JSON (bytes and text go out as they are), `key` as the Idempotency-Key."""
        headers = options.pop("headers", {})
        if key is not None:
            headers = {**headers, "Idempotency-Key": key}
        data = body if isinstance(body, bytes | str) else msgspec.json.encode(body)
        return self.request("POST", path, data, headers=headers, **options)

    def batch(self, *bodies: Any, key: str | None = None) -> Any:
        return self.post({"notifications": list(bodies)}, path=f"{URL}/batch", key=key)


@pytest.fixture(autouse=True)
def _clean_redis() -> Iterator[None]:
    """Only this project's keys: a developer's own Redis keeps what else it holds."""
    forget_redis()
    yield
    redis_breaker.success()


def forget_redis() -> None:
    """What a flush or a failover of Redis leaves of this project's keys: nothing."""
    client: Any = redis.Redis.from_url(django_settings.REDIS_URL)
    if keys := list(client.scan_iter("notifyx*", count=1000)):
        client.delete(*keys)
    client.close()


@pytest.fixture(autouse=True)
def acceptance(monkeypatch: pytest.MonkeyPatch) -> Acceptance:
    """A process's own object, new for each test: it remembers for a second how old the outbox is."""
    fresh = Acceptance(KeyStore(WakeUp(django_settings.REDIS_URL, django_settings.PRODUCER)))
    monkeypatch.setattr(views, "_acceptance", fresh)
    return fresh


def new_api(*scopes: str) -> Api:
    client = ApiClientFactory.create()
    return Api(client, create_key(client, list(scopes or ("send", "read", "operate"))))


@pytest.fixture
def api(db: None) -> Api:
    return new_api()


@pytest.fixture
def other_api(db: None) -> Api:
    return new_api()


@pytest.fixture
def mariadb(db: None) -> None:
    if connection.vendor != "mysql":
        pytest.skip("locks, plans and concurrent writers are MariaDB's: SQLite has one writer")


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def _caches_at(settings: Settings, port: int) -> None:
    caches = copy.deepcopy(settings.CACHES)
    for cache in caches.values():
        cache["LOCATION"] = f"redis://127.0.0.1:{port}/0"
    settings.CACHES = caches


@pytest.fixture
def redis_away(settings: Settings, closed_port: int) -> None:
    _caches_at(settings, closed_port)


@pytest.fixture
def silent_redis(settings: Settings) -> Iterator[None]:
    """Takes connections and never answers: the worst way of being away."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        _caches_at(settings, listening.getsockname()[1])
        yield


@pytest.fixture
def count_statements() -> Callable[[], AbstractContextManager[list[str]]]:
    """`with count_statements() as statements:` gathers the SQL that is sent, without savepoints: those are the test case's."""

    @contextmanager
    def counting() -> Iterator[list[str]]:
        statements: list[str] = []

        def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if not sql.startswith(SAVEPOINTS):
                statements.append(sql)
            return execute(sql, params, many, context)

        with connection.execute_wrapper(note):
            yield statements

    return counting


@pytest.fixture
def count_round_trips(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[], AbstractContextManager[list[Any]]]:
    """`with count_round_trips() as trips:` gathers what is sent to Redis; a pipeline is one."""

    @contextmanager
    def counting() -> Iterator[list[Any]]:
        trips: list[Any] = []
        send: Any = AbstractConnection.send_packed_command

        def note(self: AbstractConnection, command: Any, *args: Any, **options: Any) -> Any:
            trips.append(command)
            return send(self, command, *args, **options)

        with monkeypatch.context() as patched:
            patched.setattr(AbstractConnection, "send_packed_command", note)
            yield trips

    return counting


def pointers(response: HttpResponse) -> dict[str, str]:
    """The code of each error of a 400, by its pointer."""
    problem: Any = response
    return {error["pointer"]: error["code"] for error in problem.json()["errors"]}
