"""API keys: `Authorization: Bearer nx_<prefix>_<secret>`, stored hashed, compared in constant time."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from .models import ApiClient, ApiKey

LIVE_KEYS_PER_CLIENT = 2
_PREFIX_BYTES = 5
_SECRET_BYTES = 32


class TooManyKeysError(Exception):
    """The client has two live keys already."""


@dataclass(frozen=True, slots=True)
class ClientUser:
    """The `request.user` of a request with a key."""

    client: ApiClient
    is_authenticated: bool = True
    is_staff: bool = False
    is_active: bool = True

    @property
    def pk(self) -> int:
        return int(self.client.pk)

    def __str__(self) -> str:
        return str(self.client)


def digest_of(key: str) -> bytes:
    """HMAC-SHA256 under SECRET_KEY: the table alone is of no use to a thief, and keys of 256 random bits need no slow hash."""
    return hmac.digest(settings.SECRET_KEY.encode(), key.encode(), hashlib.sha256)


def create_key(client: ApiClient, scopes: list[str]) -> str:
    """Makes a key and returns it: the only time that it can be seen. TooManyKeysError where two are live."""
    if ApiKey.live().filter(client=client).count() >= LIVE_KEYS_PER_CLIENT:
        raise TooManyKeysError(client.name)
    prefix = secrets.token_hex(_PREFIX_BYTES)
    key = f"nx_{prefix}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    ApiKey.objects.create(client=client, prefix=prefix, digest=digest_of(key), scopes=",".join(scopes))
    return key


class BearerAuthentication(BaseAuthentication):
    """One query a request. Nothing but a live key's whole text is accepted; what is wrong with another one is not said."""

    def authenticate(self, request: Request) -> tuple[ClientUser, ApiKey] | None:
        scheme, _, key = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        parts = key.strip().split("_", 2)
        if len(parts) != 3 or not key.isascii():  # noqa: PLR2004 (nx, prefix, secret)
            raise AuthenticationFailed(self._words())
        found = ApiKey.live().filter(prefix=parts[1][:16]).select_related("client").first()
        expected = bytes(found.digest) if found else b"\0" * 32
        if not hmac.compare_digest(expected, digest_of(key.strip())) or found is None:
            raise AuthenticationFailed(self._words())
        return ClientUser(found.client), found

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="notifyx"'

    def _words(self) -> str:
        return "The API key is not known, expired or revoked: send Authorization: Bearer nx_… with a live one."


class HasScope(BasePermission):
    """A key needs the scope of what it asks for; staff may read, and do what their model permissions say."""

    message = "This key lacks the scope that is needed here."

    def has_permission(self, request: Request, view: Any) -> bool:
        scope = needed_scope(request, view)
        if isinstance(request.auth, ApiKey):
            self.message = f"This key lacks the scope {scope}."
            return scope in request.auth.scopes.split(",")
        user: Any = request.user
        if user is None or not user.is_authenticated or not user.is_staff:
            return False
        return scope == ApiKey.Scope.READ or user.has_perm("notifications.add_notification")


def needed_scope(request: Request, view: Any) -> str:
    if request.method in SAFE_METHODS:
        return ApiKey.Scope.READ
    scopes: dict[str, str] = getattr(view, "scopes", {})
    return scopes.get(getattr(view, "action", "") or "", ApiKey.Scope.SEND)


def operator_of(request: Request) -> str:
    """Who acts, for the audit: a client by its name, staff by theirs."""
    return str(request.user) if isinstance(request.user, ClientUser) else f"staff:{request.user.get_username()}"


def client_of(request: Request) -> ApiClient:
    """The client that a request acts for; staff in the browsable API act for a client of their own name."""
    if isinstance(request.user, ClientUser):
        return request.user.client
    name = f"staff:{request.user.get_username()}"[:100]
    client: ApiClient = ApiClient.objects.get_or_create(name=name)[0]
    return client
