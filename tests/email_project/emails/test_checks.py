"""What the e-mail service refuses to start with, and what it only warns of."""

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from email_project.emails.sender_options import server_from_settings


def found(settings: Settings, **values: object) -> list[str]:
    for name, value in values.items():
        setattr(settings, name, value)
    return [str(message.id) for message in run_checks() if str(message.id).startswith(("emails.", "outbox."))]


def test_the_defaults_are_fine(settings: Settings) -> None:
    assert found(settings, EMAIL_URL="smtp://127.0.0.1:25") == []


def test_a_service_that_sends_nothing_needs_no_server(settings: Settings) -> None:
    assert found(settings, EMAIL_URL="", DEFAULT_FROM_EMAIL="") == []


def test_a_base_above_its_maximum_is_refused(settings: Settings) -> None:
    assert found(settings, EMAIL_RETRY_BASE_SECONDS=61, EMAIL_RETRY_MAX_SECONDS=60) == ["emails.E001"]
    assert found(settings, EMAIL_RETRY_BASE_SECONDS=0.01, EMAIL_RETRY_MAX_SECONDS=0.01) == []


def test_a_lease_within_the_message_time_out_is_refused(settings: Settings) -> None:
    assert found(settings, OUTBOX_LEASE_SECONDS=30, KAFKA_MESSAGE_TIMEOUT_SECONDS=30) == ["outbox.E001"]


@pytest.mark.parametrize("url", ["127.0.0.1:25", "http://host", "smtp://", "smtp://host:x", "smtp://user@host"])
def test_a_url_that_cannot_be_read_is_refused(settings: Settings, url: str) -> None:
    assert found(settings, EMAIL_URL=url) == ["emails.E002"]


def test_a_file_of_authorities_that_cannot_be_read_is_refused(settings: Settings) -> None:
    assert found(settings, EMAIL_URL="smtp+tls://relay.test", EMAIL_SSL_CA="/nonexistent.pem") == ["emails.E002"]


@pytest.mark.parametrize("sender", ["nobody", "a@b@c"])
def test_a_sender_that_is_no_address_is_refused(settings: Settings, sender: str) -> None:
    assert found(settings, EMAIL_URL="", DEFAULT_FROM_EMAIL=sender) == ["emails.E003"]


@pytest.mark.parametrize(
    ("url", "ids"),
    [
        ("smtp://ada:secret@relay.test", ["emails.W001"]),
        ("smtp+tls://ada:secret@relay.test", []),
        ("smtp+ssl://ada:secret@relay.test", []),
        ("smtp://relay.test", []),
    ],
)
def test_a_login_without_tls_is_warned_of_and_never_refused(settings: Settings, url: str, ids: list[str]) -> None:
    assert found(settings, EMAIL_URL=url) == ids


@pytest.mark.parametrize("name", ["EMAIL_URL", "DEFAULT_FROM_EMAIL"])
def test_a_worker_names_the_variable_that_is_missing(settings: Settings, name: str) -> None:
    settings.EMAIL_URL = "smtp://127.0.0.1:25"
    setattr(settings, name, "")
    with pytest.raises(ImproperlyConfigured, match=f"{name} is not set"):
        server_from_settings()


def test_a_worker_refuses_a_sender_that_is_no_address(settings: Settings) -> None:
    settings.EMAIL_URL = "smtp://127.0.0.1:25"
    settings.DEFAULT_FROM_EMAIL = "nobody"
    with pytest.raises(ImproperlyConfigured, match="DEFAULT_FROM_EMAIL='nobody'"):
        server_from_settings()


def test_a_worker_takes_its_server_from_the_settings(settings: Settings) -> None:
    settings.EMAIL_URL = "smtp+tls://ada:s%40cret@relay.test:2525"
    settings.SMTP_TIMEOUT_SECONDS, settings.SMTP_REPLY_TIMEOUT_SECONDS = 7, 77
    server = server_from_settings()
    assert (server.host, server.port, server.security) == ("relay.test", 2525, "starttls")
    assert (server.username, server.password) == ("ada", "s@cret")
    assert (server.timeout_seconds, server.reply_timeout_seconds) == (7, 77)
