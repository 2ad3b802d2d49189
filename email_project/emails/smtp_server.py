"""Which SMTP server to talk to and how, as EMAIL_URL says it."""

import ssl
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

MAX_PORT = 65535
SECURITY_AND_PORT: dict[str, tuple[Literal["none", "starttls", "tls"], int]] = {
    "smtp": ("none", 25),
    "smtp+tls": ("starttls", 587),
    "smtp+ssl": ("tls", 465),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpServer:
    """One relay host. `ca_file` replaces the system's certificate authorities; "" means the system's.

    ValueError, in one sentence that never shows the password, if the values make no sense.
    """

    host: str
    port: int
    username: str = ""
    password: str = field(default="", repr=False)
    security: Literal["none", "starttls", "tls"] = "none"
    timeout_seconds: float = 30
    reply_timeout_seconds: float = 600
    ca_file: str = ""
    local_hostname: str | None = None

    def __post_init__(self) -> None:
        _check_host(self.host)
        if not 0 < self.port <= MAX_PORT:
            raise ValueError(f"the SMTP port {self.port} is not between 1 and 65535")
        if self.password and not self.username:
            raise ValueError("the SMTP server has a password but no user: give both or neither")
        if self.username and not self.password:
            raise ValueError(f"the SMTP user {self.username!r} has no password: give both or neither")
        if self.timeout_seconds <= 0 or self.reply_timeout_seconds <= 0:
            raise ValueError("the SMTP time-outs must be above 0 seconds")

    @classmethod
    def from_url(cls, url: str, **overrides: Any) -> "SmtpServer":
        """Read `smtp://user:password@host:25`, `smtp+tls://` (STARTTLS, 587) or `smtp+ssl://` (TLS, 465).

        User and password are percent-decoded; `overrides` are further fields of SmtpServer. ValueError as above.
        """
        parts = _split(url)
        security, default_port = SECURITY_AND_PORT[parts.scheme]
        fields: dict[str, Any] = {
            "host": parts.hostname or "",
            "port": _port(parts, default_port),
            "username": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "security": security,
        }
        return cls(**fields | overrides)

    def tls_context(self) -> ssl.SSLContext:
        """Return the context that verifies this server's certificate. ValueError if `ca_file` cannot be used."""
        return _tls_context(self.ca_file)


@lru_cache(maxsize=8)
def _tls_context(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ValueError(
            f"the CA file {ca_file!r} cannot be used ({error.strerror or error}): name a readable PEM file"
        ) from error


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    if parts.scheme not in SECURITY_AND_PORT:
        known = ", ".join(f"{scheme}://" for scheme in SECURITY_AND_PORT)
        raise ValueError(f"an SMTP URL begins with one of {known} and percent-encodes special characters")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("the SMTP URL goes on after host and port: percent-encode '/', '?' and '#' in the password")
    return parts


def _port(parts: SplitResult, default: int) -> int:
    try:
        return default if parts.port is None else parts.port
    except ValueError:  # its text may hold a part of an unquoted password
        raise ValueError(
            "the SMTP URL has no number between 1 and 65535 as its port: percent-encode ':' and '/' in the password"
        ) from None


def _check_host(host: str) -> None:
    if not host:
        raise ValueError("the SMTP server has no host name")
    try:
        host.encode("idna")  # what the resolver would do; its own failure would name no variable
    except UnicodeError:
        raise ValueError(f"the SMTP host {host!r} is not a host name") from None
