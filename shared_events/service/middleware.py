from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError

from shared_events.contracts.events import new_id

from .problems import problem_response

REQUEST_ID_LENGTH = 64
LENGTH_DIGITS = 18
DRAIN_BYTES = 64 * 1024


class RequestMiddleware:
    """Gives each request an id (the client's X-Request-Id where it is a plain one) and refuses bodies by their declared length.

    A body of unknown length is refused too: the server below would hand it over as an empty one.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = request.headers.get("X-Request-Id", "")
        if not (
            0 < len(request_id) <= REQUEST_ID_LENGTH and request_id.isascii() and request_id.replace("-", "").isalnum()
        ):
            request_id = str(new_id())
        request.request_id = request_id  # type: ignore[attr-defined]
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            response = self._refusal(request) or self._get_response(request)
            if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
                self._drain(request)
        finally:
            structlog.contextvars.unbind_contextvars("request_id")
        response["X-Request-Id"] = request_id
        return response

    def _drain(self, request: HttpRequest) -> None:
        # The server closes a connection whose body was left unread: a client still writing it would meet a broken pipe instead of the
        # answer that says "repeat".
        with suppress(UnreadablePostError):
            while request.read(DRAIN_BYTES):
                pass

    def _refusal(self, request: HttpRequest) -> HttpResponse | None:
        if request.method in {"GET", "HEAD", "OPTIONS"}:
            return None
        if "chunked" in request.headers.get("Transfer-Encoding", "").lower() and not request.headers.get(
            "Content-Length"
        ):
            return problem_response(request, 411, "length-required", "Send the body with a Content-Length.")
        declared = request.headers.get("Content-Length") or "0"
        if not (declared.isascii() and declared.isdigit() and len(declared) <= LENGTH_DIGITS):
            return problem_response(request, 400, "bad-request", "Content-Length is no number.")
        limit = settings.BODY_LIMITS.get(request.path.rstrip("/"), settings.BODY_LIMIT)
        if int(declared) > limit:
            return problem_response(
                request, 413, "body-too-large", f"The body has {int(declared)} bytes; at most {limit} are taken here."
            )
        return None
