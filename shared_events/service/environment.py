"""Reading environment variables: every error names the variable, its value and the remedy."""

import logging
import os
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import environ
import redis
from django.core.exceptions import ImproperlyConfigured

env = environ.Env()

KAFKA_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
LARGEST = 1_000_000_000
LARGEST_OF = {"days": 36_500}
"""A century in days, thirty years in seconds: far more, taken from or added to now, leaves the calendar."""

DATABASE_REMEDY = "mysql://user:password@host:3306/database, or sqlite:////path/file.sqlite3"
REDIS_REMEDY = "redis://host:6379/0"
NO_PORT = "has a port that is no number from 1 to 65535"
NO_URL = "is no URL (in a password, [ is %5B, ] is %5D, @ is %40, / is %2F, # is %23 and % is %25)"


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
    largest = LARGEST_OF.get(unit, LARGEST)
    if not minimum <= value <= largest:
        raise ImproperlyConfigured(
            f"{name}={raw!r} is no number of {unit} from {minimum:g} to {largest:,}: set one, or leave it unset for {default:g}"
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
    url = text(name, remedy=f"set it to {DATABASE_REMEDY}")
    if wrong := _wrong_database_url(url):
        raise ImproperlyConfigured(f"{name} {wrong}: set it to {DATABASE_REMEDY}")
    parsed: dict[str, Any] = env.db_url_config(url)
    if parsed["ENGINE"].endswith("sqlite3"):
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


def _split(url: str) -> tuple[SplitResult | None, str]:
    """The URL's parts, and what is wrong with its form. Python's own words may hold a part of a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None, NO_URL
    try:
        return parts, "" if parts.port != 0 else NO_PORT
    except ValueError:
        return parts, NO_PORT


def _wrong_database_url(url: str) -> str:
    """What is wrong with it, empty where nothing is. Never more of it than its scheme: the rest may hold the password."""
    parts, wrong = _split(url)
    if parts is None:
        return wrong
    if parts.scheme not in {"mysql", "sqlite"}:
        return f"begins with {parts.scheme or url[:20]!r}"
    if parts.scheme == "sqlite":
        return "" if parts.path.strip("/") or parts.netloc == ":memory:" else "names no file"
    if wrong or not parts.hostname:
        return wrong or "names no host"
    return "" if parts.path.strip("/") else "names no database"


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
    _refuse_half_a_login(protocol.upper())
    if ca_file is not None and not Path(str(ca_file)).is_file():
        raise ImproperlyConfigured(f"KAFKA_SSL_CA={ca_file!r} is no file: set it to the authority's PEM file")
    return found


def _refuse_half_a_login(protocol: str) -> None:
    names = ("KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD")
    if not protocol.startswith("SASL_"):
        for name in names:
            if optional(name):
                raise ImproperlyConfigured(
                    f"{name} is set and KAFKA_SECURITY_PROTOCOL={protocol} does not log in: set that to SASL_SSL, or leave {name} unset"
                )
        return
    for name in names:
        if not optional(name):
            raise ImproperlyConfigured(
                f"{name} is not set and KAFKA_SECURITY_PROTOCOL={protocol} logs in: set it, or the protocol to SSL or PLAINTEXT"
            )
    if optional(names[0]) not in SASL_MECHANISMS:
        raise ImproperlyConfigured(
            f"{names[0]}={optional(names[0])!r} is none: set it to one of {', '.join(SASL_MECHANISMS)}"
        )


def redis_url() -> str:
    url = text("REDIS_URL", remedy=f"set it to {REDIS_REMEDY}")
    if wrong := _wrong_redis_url(url):
        raise ImproperlyConfigured(f"REDIS_URL {wrong}: set it to {REDIS_REMEDY}")
    try:
        redis.Redis.from_url(url).close()
    except ValueError as error:
        raise ImproperlyConfigured(f"REDIS_URL is wrong ({error}): set it to {REDIS_REMEDY}") from error
    return url


def _wrong_redis_url(url: str) -> str:
    parts, wrong = _split(url)
    if parts is None:
        return wrong
    if parts.scheme not in {"redis", "rediss", "unix"}:
        return f"begins with {parts.scheme!r}"
    number = parts.path.strip("/")
    if not wrong and parts.scheme != "unix" and number and not number.isdecimal():
        return f"ends in {number!r}, which is no database's number"
    return wrong
