"""Reading environment variables: every error names the variable, its value and the remedy."""

import logging
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
import redis
from django.core.exceptions import ImproperlyConfigured

env = environ.Env()

KAFKA_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


def optional(name: str) -> str:
    """The variable's value as it stands (django-environ would take a leading $ for another variable's name), empty where unset."""
    return os.environ.get(name, "")


def text(name: str, default: str | None = None, *, remedy: str = "") -> str:
    """The variable's value; ImproperlyConfigured where it is missing or empty and has no default."""
    value = optional(name) or default
    if value is None:
        raise ImproperlyConfigured(f"{name} is not set: {remedy}")
    return str(value)


def number(name: str, default: float, *, minimum: float = 0, unit: str = "seconds") -> float:
    raw = optional(name)
    try:
        value = float(raw) if raw else default
    except ValueError:
        value = float("nan")
    if not minimum <= value < float("inf"):
        raise ImproperlyConfigured(
            f"{name}={raw!r} is no number of {unit} from {minimum:g} on: set one, or leave it unset for {default:g}"
        )
    return value


def integer(name: str, default: int, *, minimum: int = 1, unit: str = "") -> int:
    value = number(name, default, minimum=minimum, unit=unit or "things")
    if value != int(value):
        raise ImproperlyConfigured(f"{name}={value!r} is no whole number: set one, or leave it unset for {default}")
    return int(value)


def flag(name: str) -> bool:
    raw = optional(name) or "off"
    if raw.lower() not in {"on", "off", "true", "false", "1", "0", "yes", "no", ""}:
        raise ImproperlyConfigured(f"{name}={raw!r} is neither on nor off: set it to on or off")
    return raw.lower() in {"on", "true", "1", "yes"}


def log_level(name: str = "LOG_LEVEL", default: str = "INFO") -> str:
    level = text(name, default).upper()
    if level not in logging.getLevelNamesMapping():
        raise ImproperlyConfigured(f"{name}={level!r} is no level: set it to DEBUG, INFO, WARNING or ERROR")
    return level


def names(name: str) -> list[str]:
    return [item.strip() for item in optional(name).split(",") if item.strip()]


def database(name: str = "DATABASE_URL") -> dict[str, Any]:
    """Django's settings of the one database, with the session that the claims rest on: READ COMMITTED, UTC, short waits."""
    url = text(name, remedy="set it to mysql://user:password@host:3306/database, or sqlite:////path/file.sqlite3")
    scheme = urlsplit(url).scheme
    if scheme not in {"mysql", "sqlite"}:
        raise ImproperlyConfigured(_refused_url(name, url))
    try:
        parsed: dict[str, Any] = env.db_url_config(url)
    except (ValueError, KeyError, AttributeError) as error:
        raise ImproperlyConfigured(_refused_url(name, url)) from error
    if scheme == "sqlite":
        parsed["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "timeout": 5, "init_command": "PRAGMA journal_mode = WAL"}
    else:
        parsed["OPTIONS"] = {
            **parsed.get("OPTIONS", {}),
            "isolation_level": "read committed",
            "charset": "utf8mb4",
            "init_command": "SET SESSION time_zone = '+00:00', innodb_lock_wait_timeout = 3",
            "connect_timeout": 5,
            "read_timeout": 15,
            "write_timeout": 15,
        }
    return {**parsed, "CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}


def _refused_url(name: str, url: str) -> str:
    scheme = urlsplit(url).scheme or url[:20]
    return f"{name} begins with {scheme!r}: set it to mysql://user:password@host:3306/database, or sqlite:////path/file.sqlite3"


def kafka() -> dict[str, str | int | float | bool]:
    """Librdkafka's connection settings from KAFKA_BOOTSTRAP_SERVERS, KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_…, KAFKA_SSL_…."""
    found: dict[str, str | int | float | bool] = {
        "bootstrap.servers": text(
            "KAFKA_BOOTSTRAP_SERVERS", remedy="set it to the brokers' addresses, host:9092,host:9092"
        )
    }
    variables = {
        "KAFKA_SECURITY_PROTOCOL": "security.protocol",
        "KAFKA_SASL_MECHANISM": "sasl.mechanism",
        "KAFKA_SASL_USERNAME": "sasl.username",
        "KAFKA_SASL_PASSWORD": "sasl.password",
        "KAFKA_SSL_CA": "ssl.ca.location",
    }
    for variable, name in variables.items():
        if value := optional(variable):
            found[name] = value
    protocol, ca_file = str(found.get("security.protocol", "PLAINTEXT")), found.get("ssl.ca.location")
    if protocol.upper() not in KAFKA_PROTOCOLS:
        raise ImproperlyConfigured(
            f"KAFKA_SECURITY_PROTOCOL={protocol!r} is none: set it to one of {', '.join(KAFKA_PROTOCOLS)}"
        )
    if ca_file is not None and not Path(str(ca_file)).is_file():
        raise ImproperlyConfigured(f"KAFKA_SSL_CA={ca_file!r} is no file: set it to the authority's PEM file")
    return found


def redis_url() -> str:
    url = text("REDIS_URL", remedy="set it to redis://host:6379/0")
    if urlsplit(url).scheme not in {"redis", "rediss", "unix"}:
        raise ImproperlyConfigured(
            f"REDIS_URL begins with {urlsplit(url).scheme!r}: set it to redis://host:6379/0 or rediss://…"
        )
    try:
        redis.Redis.from_url(url).close()
    except ValueError as error:
        raise ImproperlyConfigured(f"REDIS_URL is wrong ({error}): set it to redis://host:6379/0") from error
    return url
