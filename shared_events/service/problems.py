"""Problem details (RFC 9457) for every error a client can meet. A 5xx never shows an exception's text."""

from http import HTTPStatus
from typing import Any, ClassVar

import msgspec
import structlog
from django.http import HttpRequest, HttpResponse
from django.views import defaults
from drf_standardized_errors.formatter import ExceptionFormatter
from drf_standardized_errors.handler import ExceptionHandler
from drf_standardized_errors.types import ErrorResponse
from rest_framework import exceptions
from rest_framework.response import Response

from shared_events.runtime.database import is_passing

from .rendering import PROBLEM_MEDIA_TYPE

MAXIMUM_ERRORS = 1_000

log = structlog.get_logger(__name__)


class Problem(exceptions.APIException):
    """An error with a status, a code of ours, a sentence that says what to do, and headers of its own."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        retry_after_seconds: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail, code)
        self.status_code = status
        self.code = code
        self.errors: list[dict[str, str]] | None = None
        self.headers = dict(headers or {})
        if retry_after_seconds is not None:
            self.headers["Retry-After"] = str(retry_after_seconds)


def database_away() -> Problem:
    return Problem(
        503,
        "database-unavailable",
        "The database does not answer; nothing was stored. Repeat the request.",
        retry_after_seconds=2,
    )


CODES: dict[int, str] = {
    400: "bad-request",
    401: "unauthenticated",
    403: "permission-denied",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    411: "length-required",
    413: "body-too-large",
    415: "unsupported-media-type",
    500: "internal-error",
    503: "service-unavailable",
}


def problem_body(
    request: HttpRequest | None, status: int, code: str, detail: str, errors: list[dict[str, str]] | None = None
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": f"urn:notifyx:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "instance": getattr(request, "path", ""),
        "request_id": getattr(request, "request_id", ""),
    }
    if errors is not None:
        body["errors"] = errors
    return body


def problem_response(
    request: HttpRequest, status: int, code: str, detail: str, headers: dict[str, str] | None = None
) -> HttpResponse:
    """A problem outside of Django REST framework's views."""
    return HttpResponse(
        msgspec.json.encode(problem_body(request, status, code, detail)),
        status=status,
        content_type=PROBLEM_MEDIA_TYPE,
        headers=headers,
    )


class ProblemHandler(ExceptionHandler):
    """An unreachable database is a 503, and headers of a Problem are sent."""

    def convert_known_exceptions(self, exc: Exception) -> Exception:
        if is_passing(exc):
            log.warning("the database is away or busy", error=str(exc))
            return database_away()
        converted: Exception = super().convert_known_exceptions(exc)
        return converted

    def report_exception(self, exc: exceptions.APIException, response: Response) -> None:
        if not isinstance(exc, Problem):
            super().report_exception(exc, response)

    def get_headers(self, exc: exceptions.APIException) -> dict[str, str]:
        return {**super().get_headers(exc), **getattr(exc, "headers", {})}


class ProblemFormatter(ExceptionFormatter):
    """drf-standardized-errors' flattened errors, as JSON pointers (RFC 6901) in a problem body."""

    WORDS: ClassVar[dict[int, str]] = {
        500: "Something went wrong on our side; it was logged. Repeat the request later."
    }

    def format_error_response(self, error_response: ErrorResponse) -> dict[str, Any]:
        request = getattr(self.context.get("request"), "_request", None)
        status = self.exc.status_code
        if isinstance(self.exc, exceptions.ValidationError):
            errors = [
                {"pointer": pointer(error.attr), "code": str(error.code).replace("_", "-"), "detail": str(error.detail)}
                for error in error_response.errors[:MAXIMUM_ERRORS]
            ]
            return problem_body(
                request,
                status,
                "validation-failed",
                "The request is not valid; nothing was stored. See errors.",
                errors,
            )
        code = self.exc.code if isinstance(self.exc, Problem) else CODES.get(status, "error")
        if isinstance(self.exc, exceptions.ParseError):
            code = "malformed-json"
        return problem_body(
            request,
            status,
            code,
            self.WORDS.get(status) or str(self.exc.detail),
            getattr(self.exc, "errors", None) or None,
        )


def pointer(attribute: str | None) -> str:
    """`notifications/3/subject` (the separator is the settings') as a JSON pointer (RFC 6901).

    An error of a whole object or array points at it, one of the whole body is the empty pointer.
    """
    if attribute is None:
        return ""
    return f"/{attribute}".removesuffix("/non_field_errors")


def escape_pointer(name: str) -> str:
    """A key of the client's as one part of a JSON pointer (RFC 6901 4), shortened to 64 characters."""
    return name[:64].replace("~", "~0").replace("/", "~1")


def _wants_page(request: HttpRequest) -> bool:
    return request.path.startswith("/admin/")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _wants_page(request):
        return defaults.bad_request(request, exception)
    return problem_response(
        request, 400, "bad-request", "The request line, a header or the Host is not acceptable here."
    )


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _wants_page(request):
        return defaults.permission_denied(request, exception)
    return problem_response(request, 403, "permission-denied", "You may not do this.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _wants_page(request):
        return defaults.page_not_found(request, exception)
    return problem_response(request, 404, "not-found", "There is nothing at this address.")


def server_error(request: HttpRequest) -> HttpResponse:
    if _wants_page(request):
        return defaults.server_error(request)
    return problem_response(request, 500, "internal-error", ProblemFormatter.WORDS[500])
