"""`/health/live` and `/health/ready`: no credentials are read, and live touches nothing."""

import socket
from typing import Any

import redis
import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared_events.runtime.models import ProcessState

from .problems import problem_response

DATABASE_SECONDS = 1
DEPENDENCY_SECONDS = 0.3

log = structlog.get_logger(__name__)


def live(_request: HttpRequest) -> HttpResponse:
    return JsonResponse({"status": "ok"})


def ready(request: HttpRequest) -> HttpResponse:
    """200 where the database answers within two seconds (`degraded` where Redis or Kafka does not), else 503."""
    if not _database_answers():
        return problem_response(
            request, 503, "database-unavailable", "The database does not answer.", headers={"Retry-After": "2"}
        )
    parts = {"database": "ok", "redis": _word(_redis_answers()), "kafka": _word(_kafka_listens())}
    workers = _open_circuits()
    status = "ok" if set(parts.values()) == {"ok"} and not workers else "degraded"
    return JsonResponse({"status": status, **parts, "workers": workers})


def _open_circuits() -> list[dict[str, str]]:
    """What the workers have paused or given up for now, with its reason: a command, a circuit, since when."""
    states = (
        ProcessState.objects.alive().exclude(open_circuits=[]).order_by("id").values_list("command", "open_circuits")
    )
    return [{"command": command, **circuit} for command, circuits in states for circuit in circuits]


def _word(answers: bool) -> str:
    return "ok" if answers else "away"


def _database_answers() -> bool:
    # A connection of its own: the request's one may wait for its time-outs of many seconds.
    connection: Any = connections["default"].copy("default")
    if connection.vendor == "mysql":
        connection.settings_dict["OPTIONS"].update(connect_timeout=DATABASE_SECONDS, read_timeout=DATABASE_SECONDS)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return True
    except (DatabaseError, InterfaceError) as error:
        log.warning("the database does not answer", error=str(error))
        return False
    finally:
        connection.close()


def _redis_answers() -> bool:
    client: Any = redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=DEPENDENCY_SECONDS,
        socket_connect_timeout=DEPENDENCY_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def _kafka_listens() -> bool:
    for server in str(settings.KAFKA["bootstrap.servers"]).split(","):
        host, _, port = server.strip().rpartition("://")[2].rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), DEPENDENCY_SECONDS):
                return True
        except (OSError, ValueError):
            continue
    return False
