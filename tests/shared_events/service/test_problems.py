"""Problem details for what happens outside of a view: a wrong Host, unknown addresses, crashes; and each request's id."""

import logging
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.urls import path
from pytest_django import Settings

from notification_project.urls import handler400, handler403, handler404, handler500
from notification_project.urls import urlpatterns as own_urls
from shared_events.service.middleware import RequestMiddleware
from shared_events.service.problems import escape_pointer, pointer

SECRET_WORDS = "words of the exception"
RAISES: dict[str, type[Exception]] = {
    "crash": ZeroDivisionError, "denied": PermissionDenied, "suspicious": SuspiciousOperation,
}  # fmt: skip


def raising(kind: type[Exception]) -> Any:
    def view(_request: HttpRequest) -> HttpResponse:
        raise kind(SECRET_WORDS)

    return view


urlpatterns = [*own_urls, *(path(name, raising(kind)) for name, kind in RAISES.items())]
urlpatterns += [path(f"admin/{name}", raising(kind)) for name, kind in RAISES.items()]
__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]


@pytest.fixture
def http(settings: Settings) -> Client:
    settings.ROOT_URLCONF = __name__
    return Client(raise_request_exception=False)


def assert_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response["Content-Type"]) == (status, "application/problem+json")
    body: dict[str, Any] = response.json()
    assert set(body) == {"type", "title", "status", "detail", "code", "instance", "request_id"}
    assert (body["status"], body["code"], body["type"]) == (status, code, f"urn:notifyx:problem:{code}")
    assert body["request_id"] == response["X-Request-Id"]
    assert SECRET_WORDS not in response.content.decode()
    return body


@pytest.mark.parametrize(("name", "status", "code"), [
    ("crash", 500, "internal-error"), ("denied", 403, "permission-denied"), ("suspicious", 400, "bad-request"),
])  # fmt: skip
def test_what_a_view_raises_is_a_problem_without_the_exceptions_words(
    http: Client, name: str, status: int, code: str
) -> None:
    assert assert_problem(http.get(f"/{name}"), status, code)["instance"] == f"/{name}"


def test_a_crash_is_logged_with_its_cause(http: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        http.get("/crash")
    assert any(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records)


@pytest.mark.django_db
def test_the_admins_errors_are_pages(http: Client) -> None:
    for name, status in (("denied", 403), ("suspicious", 400)):
        response = http.get(f"/admin/{name}")
        assert response["Content-Type"].startswith("text/html"), name
        assert response.status_code in {status, 302}


@pytest.mark.parametrize("host", ["evil.example.com", "a b", "testserver:x"])
def test_a_wrong_host_is_400(http: Client, host: str) -> None:
    assert_problem(http.get("/nothing", headers={"Host": host}), 400, "bad-request")


def test_an_unknown_address_is_404_for_every_method(http: Client) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
        assert_problem(http.generic(method, "/nothing/here"), 404, "not-found")


@pytest.mark.parametrize("given", ["abc-123", "A" * 64, "0"])
def test_a_plain_request_id_is_echoed(http: Client, given: str) -> None:
    response = http.get("/nothing", headers={"X-Request-Id": given})
    assert response["X-Request-Id"] == response.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "a b", "a" * 65, "a\r\nb", "ä", "<script>", "-", "a;b"])
def test_any_other_request_id_is_replaced(http: Client, given: str) -> None:
    request = RequestFactory().get("/", headers={"X-Request-Id": given})
    response = RequestMiddleware(lambda _request: HttpResponse())(request)
    assert response["X-Request-Id"] != given
    assert len(response["X-Request-Id"]) == 36


def test_each_request_has_an_id_of_its_own_on_success_too(http: Client) -> None:
    first, second = (http.get("/health/live")["X-Request-Id"] for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [(None, ""), ("non_field_errors", ""), ("subject", "/subject"), ("notifications/3/subject", "/notifications/3/subject"),
     ("notifications/non_field_errors", "/notifications"), ("", "/")],
)  # fmt: skip
def test_a_pointer_is_made_of_an_attribute(attribute: str | None, expected: str) -> None:
    assert pointer(attribute) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("a", "a"), ("a/b", "a~1b"), ("a~b", "a~0b"), ("~1", "~01"), ("x" * 99, "x" * 64)]
)
def test_a_name_is_escaped_as_rfc_6901_has_it(name: str, expected: str) -> None:
    assert escape_pointer(name) == expected
