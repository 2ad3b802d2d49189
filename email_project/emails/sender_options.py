"""How a sender is set up: from the settings, which the environment gives."""

from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .message import message_id_for
from .smtp import SmtpServer


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderOptions:
    connections: int
    lease_seconds: float
    poll_seconds: float | None  # None: only what is handed over, and what was said to be due
    grace_seconds: float

    @classmethod
    def from_settings(cls, *, polls: bool) -> "SenderOptions":
        return cls(
            connections=settings.SMTP_CONNECTIONS,
            lease_seconds=settings.EMAIL_LEASE_SECONDS,
            poll_seconds=settings.RETRY_POLL_SECONDS if polls else None,
            grace_seconds=settings.SHUTDOWN_GRACE_SECONDS,
        )


def server_from_settings() -> SmtpServer:
    """The SMTP server of EMAIL_URL; ImproperlyConfigured where it, or the sender's address, is missing or wrong."""
    for name in ("EMAIL_URL", "DEFAULT_FROM_EMAIL"):
        if not getattr(settings, name):
            raise ImproperlyConfigured(f"{name} is not set: a worker that sends mail needs it, see .env.example")
    require_sender()
    return read_server()


def require_sender() -> None:
    """ImproperlyConfigured where mails cannot come from DEFAULT_FROM_EMAIL: each would be found impossible to render, one by one."""
    try:
        message_id_for(UUID(int=0), settings.DEFAULT_FROM_EMAIL)
    except ValueError as error:
        raise ImproperlyConfigured(
            f"DEFAULT_FROM_EMAIL={settings.DEFAULT_FROM_EMAIL!r}: {error}; set it to NotifyX <noreply@example.com>"
        ) from error


def read_server() -> SmtpServer:
    """What EMAIL_URL, EMAIL_SSL_CA and the time-outs say; ImproperlyConfigured where they are wrong."""
    try:
        server = SmtpServer.from_url(
            settings.EMAIL_URL,
            timeout_seconds=settings.SMTP_TIMEOUT_SECONDS,
            reply_timeout_seconds=settings.SMTP_REPLY_TIMEOUT_SECONDS,
            ca_file=settings.EMAIL_SSL_CA,
        )
    except ValueError as error:
        raise ImproperlyConfigured(f"EMAIL_URL: {error}") from error
    try:
        server.tls_context()
    except ValueError as error:
        raise ImproperlyConfigured(f"EMAIL_SSL_CA: {error}") from error
    return server
