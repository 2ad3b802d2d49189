"""`GET /notifications`: filters and the keyset cursor. A page costs the same wherever it is; nothing is counted."""

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import QueryDict
from rest_framework.exceptions import ErrorDetail, ValidationError

from .models import ApiClient, Notification
from .serializers import InstantField

LIMIT_DEFAULT = 50
LIMIT_MAXIMUM = 100
CLOCK_SLACK = timedelta(seconds=1)  # an id and its created_at are made one after the other
PARAMETERS = ("status", "recipient", "client_reference", "created_from", "created_to", "limit", "cursor", "format")


@dataclass(frozen=True, slots=True)
class Page:
    results: list[Notification]
    next: str | None


def page(parameters: QueryDict, client: ApiClient | None) -> Page:
    """A page of `client`'s notifications (of all where None), newest first. ValidationError for an unknown parameter or a bad value."""
    values = _Parameters(parameters)
    query: QuerySet[Notification] = Notification.objects.order_by("-id")
    if client is not None:
        # Not `client = …`: MariaDB then looks the client up alone and reads from its newest row down to the cursor.
        query = query.filter(client_id__gte=client.pk, client_id__lte=client.pk).order_by("-client_id", "-id")
    for name in ("recipient", "client_reference"):
        if (text := values.text(name)) is not None:
            query = query.filter(**{name: text})
    if (status := values.text("status")) is not None:
        values.require(
            "status", status in Notification.Status.values, f"Must be one of {', '.join(Notification.Status.values)}."
        )
        query = query.filter(status=status)
    # Ids are made in the order of time, so a bound on the time is one on the primary key as well.
    if (created_from := values.instant("created_from")) is not None:
        query = query.filter(created_at__gte=created_from, pk__gte=_id_at(created_from, -CLOCK_SLACK))
    if (created_to := values.instant("created_to")) is not None:
        query = query.filter(created_at__lt=created_to, pk__lt=_id_at(created_to, CLOCK_SLACK))
    if (cursor := values.cursor()) is not None:
        query = query.filter(pk__lt=cursor)
    limit = values.limit()
    values.finish()
    rows = list(query[: limit + 1])
    return Page(rows[:limit], cursor_of(rows[limit - 1].pk) if len(rows) > limit else None)


def cursor_of(last: UUID) -> str:
    return base64.urlsafe_b64encode(last.bytes).decode().rstrip("=")


def _id_at(instant: datetime, slack: timedelta) -> UUID:
    """The lowest UUIDv7 of a time, `slack` off."""
    milliseconds = max(0, int((instant - datetime(1970, 1, 1, tzinfo=UTC) + slack) / timedelta(milliseconds=1)))
    return UUID(int=milliseconds << 80)


class _Parameters:
    """Reads query parameters and gathers their errors."""

    def __init__(self, parameters: QueryDict) -> None:
        self._parameters = parameters
        self._errors: dict[str, Any] = {}
        for name in parameters:
            self.require(
                name[:64], name in PARAMETERS, f"There is no such parameter; there are {', '.join(PARAMETERS)}."
            )
            self.require(name[:64], len(parameters.getlist(name)) == 1, "Must be given once.")

    def require(self, name: str, condition: bool, words: str) -> None:
        if not condition:
            self._errors.setdefault(name, [ErrorDetail(words, code="invalid")])

    def text(self, name: str) -> str | None:
        value = self._parameters.get(name)
        if value is not None:
            self.require(name, bool(value) and "\0" not in value, "Must not be empty.")
        return value

    def instant(self, name: str) -> datetime | None:
        value = self._parameters.get(name)
        if value is None:
            return None
        try:
            return InstantField().to_internal_value(value.replace(" ", "+"))  # a plus sign that was not encoded
        except ValidationError as error:
            self._errors.setdefault(name, error.detail)
            return None

    def cursor(self) -> UUID | None:
        value = self._parameters.get("cursor")
        if value is None:
            return None
        try:
            return UUID(bytes=base64.urlsafe_b64decode(value.encode("ascii") + b"=="))
        except (ValueError, binascii.Error):
            self.require("cursor", condition=False, words="Is no cursor: take `next` of the page before.")
            return None

    def limit(self) -> int:
        value = self._parameters.get("limit", str(LIMIT_DEFAULT))
        valid = (
            value.isascii()
            and value.isdigit()
            and len(value) <= len(str(LIMIT_MAXIMUM))
            and 1 <= int(value) <= LIMIT_MAXIMUM
        )
        self.require("limit", valid, f"Must be a number from 1 to {LIMIT_MAXIMUM}.")
        return int(value) if valid else LIMIT_DEFAULT

    def finish(self) -> None:
        if self._errors:
            raise ValidationError(self._errors)
