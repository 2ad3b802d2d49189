"""Reading environment variables: every error names the variable, its value and the remedy."""

from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

env = environ.Env()


def text(name: str, default: str | None = None, *, remedy: str = "") -> str:
    """The variable's value; ImproperlyConfigured where it is missing or empty and has no default."""
    value = env.str(name, default="") or default
    if value is None:
        raise ImproperlyConfigured(f"{name} is not set: {remedy}")
    return str(value)


def number(name: str, default: float, *, minimum: float = 0, unit: str = "seconds") -> float:
    raw = env.str(name, default="")
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
    raw = env.str(name, default="off")
    if raw.lower() not in {"on", "off", "true", "false", "1", "0", "yes", "no", ""}:
        raise ImproperlyConfigured(f"{name}={raw!r} is neither on nor off: set it to on or off")
    return raw.lower() in {"on", "true", "1", "yes"}


def names(name: str) -> list[str]:
    return [item.strip() for item in env.str(name, default="").split(",") if item.strip()]


def database(name: str = "DATABASE_URL") -> dict[str, Any]:
    """Django's settings of the one database, with the session that the claims rest on: READ COMMITTED, UTC, short waits."""
    url = text(name, remedy="set it to mysql://user:password@host:3306/database, or sqlite:////path/file.sqlite3")
    try:
        parsed: dict[str, Any] = env.db_url_config(url)
        engine = parsed["ENGINE"].rpartition(".")[2]
    except (ValueError, KeyError, AttributeError, ImproperlyConfigured) as error:
        raise ImproperlyConfigured(_refused_url(name, url)) from error
    if engine == "mysql":
        parsed["OPTIONS"] = {
            **parsed.get("OPTIONS", {}),
            "isolation_level": "read committed",
            "charset": "utf8mb4",
            "init_command": "SET SESSION time_zone = '+00:00', innodb_lock_wait_timeout = 3",
            "connect_timeout": 5,
            "read_timeout": 15,
            "write_timeout": 15,
        }
    elif engine == "sqlite3":
        parsed["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "timeout": 5, "init_command": "PRAGMA journal_mode = WAL"}
    else:
        raise ImproperlyConfigured(_refused_url(name, url))
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
        if value := env.str(variable, default=""):
            found[name] = value
    return found


def redis_url() -> str:
    url = text("REDIS_URL", remedy="set it to redis://host:6379/0")
    if urlsplit(url).scheme not in {"redis", "rediss", "unix"}:
        raise ImproperlyConfigured(
            f"REDIS_URL begins with {urlsplit(url).scheme!r}: set it to redis://host:6379/0 or rediss://…"
        )
    return url
