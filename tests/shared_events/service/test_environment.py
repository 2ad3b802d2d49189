"""Reading the environment: every error names the variable, its value and the remedy."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from shared_events.service import environment

SQLITE = "sqlite:////tmp/n.sqlite3"

REFUSED: list[tuple[str, str | None, Callable[[], Any], str]] = [
    ("X_TEXT", None, lambda: environment.text("X_TEXT", remedy="set it to 7"), "X_TEXT is not set: set it to 7"),
    ("X_TEXT", "", lambda: environment.text("X_TEXT", remedy="set it to 7"), "X_TEXT is not set: set it to 7"),
    ("X_FLAG", "maybe", lambda: environment.flag("X_FLAG"), "X_FLAG='maybe' is neither on nor off: set it to on or off"),
    ("REDIS_URL", None, environment.redis_url, "REDIS_URL is not set: set it to redis://host:6379/0"),
    ("REDIS_URL", "localhost:6379", environment.redis_url, "REDIS_URL begins with 'localhost': set it to redis://host:6379/0"),
    ("REDIS_URL", "http://localhost", environment.redis_url, "REDIS_URL begins with 'http': set it to redis://host:6379/0"),
    ("KAFKA_BOOTSTRAP_SERVERS", None, environment.kafka, "KAFKA_BOOTSTRAP_SERVERS is not set: set it to the brokers' addresses"),
    ("KAFKA_SECURITY_PROTOCOL", "TLS", environment.kafka, "KAFKA_SECURITY_PROTOCOL='TLS' is none: set it to one of PLAINTEXT, SSL,"),
    ("KAFKA_SSL_CA", "/no.pem", environment.kafka, "KAFKA_SSL_CA='/no.pem' is no file: set it to the authority's PEM file"),
    ("LOG_LEVEL", "LOUD", environment.log_level, "LOG_LEVEL='LOUD' is no level: set it to DEBUG, INFO, WARNING or ERROR"),
    ("DATABASE_URL", "mysq://u:p@h/d", environment.database, "DATABASE_URL begins with 'mysq': set it to mysql://"),
    ("DATABASE_URL", None, environment.database, "DATABASE_URL is not set: set it to mysql://user:password@host:3306/database"),
    ("DATABASE_URL", "postgres://u:p@h/d", environment.database, "DATABASE_URL begins with 'postgres': set it to mysql://"),
    ("DATABASE_URL", "nonsense", environment.database, "DATABASE_URL begins with 'nonsense': set it to mysql://"),
    ("DATABASE_URL", "mysql://u:p@h:port/d", environment.database, "DATABASE_URL has a port that is no number from 1 to 65535: set it to mysql://"),
    ("DATABASE_URL", "mysql://u:p@h:0/d", environment.database, "DATABASE_URL has a port that is no number from 1 to 65535"),
    ("DATABASE_URL", "mysql://u:p[@h/d", environment.database, "DATABASE_URL is no URL (in a password, [ is %5B"),
    ("DATABASE_URL", "mysql://", environment.database, "DATABASE_URL names no host: set it to mysql://"),
    ("DATABASE_URL", "mysql://u:p@h/", environment.database, "DATABASE_URL names no database: set it to mysql://"),
    ("DATABASE_URL", "sqlite:///", environment.database, "DATABASE_URL names no file: set it to mysql://"),
    ("REDIS_URL", "redis://:p[@h/0", environment.redis_url, "REDIS_URL is no URL (in a password, [ is %5B"),
    ("REDIS_URL", "redis://h:x/0", environment.redis_url, "REDIS_URL has a port that is no number from 1 to 65535: set it to redis://"),
    ("REDIS_URL", "redis://h/abc", environment.redis_url, "REDIS_URL ends in 'abc', which is no database's number: set it to redis://"),
    ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL", environment.kafka, "KAFKA_SASL_MECHANISM is not set and KAFKA_SECURITY_PROTOCOL=SASL_SSL"),
    ("KAFKA_SASL_USERNAME", "u", environment.kafka, "KAFKA_SASL_USERNAME is set and KAFKA_SECURITY_PROTOCOL=PLAINTEXT does not log in"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "read", "words"), REFUSED)
def test_a_wrong_value_is_refused_by_name_value_and_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, read: Callable[[], Any], words: str
) -> None:
    monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured, match=re.escape(words)):
        read()


@pytest.mark.parametrize("value", ["ten", "-1", "1e10", "nan", "inf", "-inf", "1,5", "0x10", "1 s"])
def test_what_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("X_SECONDS", value)
    words = f"X_SECONDS={value!r} is no number of seconds from 0 to 1,000,000,000: set one, or leave it unset for 30"
    with pytest.raises(ImproperlyConfigured, match=re.escape(words)):
        environment.number("X_SECONDS", 30)


def test_days_that_lead_before_the_calendar_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_DAYS", "800000")
    with pytest.raises(ImproperlyConfigured, match="X_DAYS='800000' is no number of days from 0 to 36,500"):
        environment.number("X_DAYS", 90, unit="days")


@pytest.mark.parametrize("value", ["GSSAPI", "scram"])
def test_a_mechanism_that_the_client_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"KAFKA_SASL_{name}", "x")
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("KAFKA_SASL_MECHANISM", value)
    with pytest.raises(
        ImproperlyConfigured, match=f"KAFKA_SASL_MECHANISM='{value}' is none: set it to one of PLAIN, SCRAM-SHA-256"
    ):
        environment.kafka()


def test_no_error_shows_more_of_a_url_than_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (
        "mysql://u:sec/ret@h:3306/d",
        "mysql://u:secret[@h/d",
        "mysql://u:p:secret@h:secret/d",
        "mysql://u:secret@",
    ):
        monkeypatch.setenv("DATABASE_URL", url)
        with pytest.raises(ImproperlyConfigured) as raised:
            environment.database()
        assert "sec" not in str(raised.value)


@pytest.mark.parametrize(("value", "expected"), [("", 30), ("0", 0), ("0.25", 0.25), ("1e3", 1000), (" 7 ", 7)])
def test_a_number_is_read_and_an_empty_one_is_the_default(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: float
) -> None:
    monkeypatch.setenv("X_SECONDS", value)
    assert environment.number("X_SECONDS", 30) == expected


@pytest.mark.parametrize("value", ["0", "1.5", "-3", "x"])
def test_what_is_no_whole_number_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("X_ROWS", value)
    with pytest.raises(
        ImproperlyConfigured, match=r"^X_ROWS='?-?[\dx.]+'? is no (whole )?number.*: set one, or leave it unset for 5"
    ):
        environment.integer("X_ROWS", 5, unit="rows")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("on", True),
        ("ON", True),
        ("true", True),
        ("1", True),
        ("yes", True),
        ("off", False),
        ("0", False),
        ("no", False),
        ("", False),
    ],
)
def test_a_flag_is_on_or_off(monkeypatch: pytest.MonkeyPatch, value: str, expected: bool) -> None:
    monkeypatch.setenv("X_FLAG", value)
    assert environment.flag("X_FLAG") is expected
    monkeypatch.delenv("X_FLAG")
    assert environment.flag("X_FLAG") is False


def test_names_are_joined_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_HOSTS", " a.example.com, ,b.example.com,")
    assert environment.names("X_HOSTS") == ["a.example.com", "b.example.com"]


def test_a_mysql_session_is_what_the_claims_rest_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://user:p%40ss@db.example.com:3307/notification_db")
    found = environment.database()
    assert (found["USER"], found["PASSWORD"], found["HOST"], found["PORT"], found["NAME"]) == (
        "user", "p@ss", "db.example.com", 3307, "notification_db",
    )  # fmt: skip
    options = found["OPTIONS"]
    assert options["isolation_level"] == "read committed"
    assert "time_zone = '+00:00'" in options["init_command"]
    assert "innodb_lock_wait_timeout = 3" in options["init_command"]
    assert all(options[name] > 0 for name in ("connect_timeout", "read_timeout", "write_timeout"))
    assert (found["CONN_MAX_AGE"], found["CONN_HEALTH_CHECKS"]) == (60, True)


def test_a_sqlite_session_writes_ahead_and_locks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", SQLITE)
    found = environment.database()
    assert found["NAME"] == "/tmp/n.sqlite3"
    assert found["OPTIONS"] == {
        "transaction_mode": "IMMEDIATE", "timeout": 5, "init_command": "PRAGMA journal_mode = WAL",
    }  # fmt: skip


def test_kafkas_settings_are_those_that_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECURITY_PROTOCOL", "SASL_MECHANISM", "SASL_USERNAME", "SASL_PASSWORD", "SSL_CA"):
        monkeypatch.delenv(f"KAFKA_{name}", raising=False)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "a:9092,b:9092")
    assert environment.kafka() == {"bootstrap.servers": "a:9092,b:9092"}
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("KAFKA_SASL_MECHANISM", "PLAIN")
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "ada")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "$ecret")
    monkeypatch.setenv("KAFKA_SSL_CA", __file__)
    assert environment.kafka() == {
        "bootstrap.servers": "a:9092,b:9092",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "ada",
        "sasl.password": "$ecret",
        "ssl.ca.location": __file__,
    }


@pytest.mark.parametrize("url", ["redis://h:6379/0", "rediss://h:6379/0", "unix:///run/redis.sock"])
def test_a_url_of_redis_is_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    assert environment.redis_url() == url
