"""What is refused before a body is looked at: credentials, methods, addresses, media types and lengths."""

from typing import Any

import pytest

from notification_project.notifications.models import Notification
from tests.notification_project.conftest import URL, Api, new_api
from tests.notification_project.factories import BodyFactory, NotificationFactory

MIB = 1024 * 1024


def assert_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """The whole contract of an error, RFC 9457."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"urn:notifyx:problem:{code}"
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["instance"] == response.wsgi_request.path
    assert problem["request_id"] == response["X-Request-Id"]
    assert problem["title"]
    assert problem["detail"]
    return problem


EVERY_ROUTE = [
    ("POST", URL), ("GET", URL), ("POST", f"{URL}/batch"), ("GET", f"{URL}/{{id}}"), ("GET", f"{URL}/{{id}}/events"),
    ("POST", f"{URL}/{{id}}/cancel"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), EVERY_ROUTE)
@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer nx_0000000000_wrong", "Bearer nx_a_ä", "Basic YTpi", "Bearer a b c"]
)
def test_strangers_get_401_everywhere(api: Api, method: str, path: str, authorization: str | None) -> None:
    path = path.format(id=NotificationFactory.create(client=api.client).pk)
    headers = {} if authorization is None else {"Authorization": authorization}
    response = Api(api.client, None).request(method, path, "{}" if method == "POST" else "", headers=headers)
    assert_problem(response, 401, "unauthenticated")
    assert response["WWW-Authenticate"] == 'Bearer realm="notifyx"'


@pytest.mark.parametrize(("method", "path"), EVERY_ROUTE)
def test_a_key_without_the_scope_gets_403_and_is_told_which(api: Api, method: str, path: str) -> None:
    missing = "read" if method == "GET" else "send"
    limited = new_api("operate", "send" if missing == "read" else "read")
    path = path.format(id=NotificationFactory.create(client=limited.client).pk)
    problem = assert_problem(limited.request(method, path, "{}"), 403, "permission-denied")
    assert missing in problem["detail"]


@pytest.mark.parametrize(("method", "path"), [route for route in EVERY_ROUTE if "{id}" in route[1]])
def test_another_clients_notification_is_404(api: Api, other_api: Api, method: str, path: str) -> None:
    path = path.format(id=NotificationFactory.create(client=api.client).pk)
    assert api.request(method, path).status_code != 404
    assert_problem(other_api.request(method, path), 404, "not-found")


@pytest.mark.parametrize(
    "path", ["/api/v1/notifications/", "/api/v1/notifications/no-id", "/api/v1/other", "/nothing", f"{URL}/batch/x"]
)
def test_an_unknown_address_is_404(api: Api, path: str) -> None:
    assert_problem(api.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("PUT", URL, "GET, POST"), ("DELETE", URL, "GET, POST"), ("GET", f"{URL}/batch", "POST"), ("PATCH", f"{URL}/{{id}}", "GET"),
     ("GET", f"{URL}/{{id}}/cancel", "POST"), ("POST", f"{URL}/{{id}}/events", "GET")],
)  # fmt: skip
def test_another_method_is_405_with_those_that_are_allowed(api: Api, method: str, path: str, allowed: str) -> None:
    path = path.format(id=NotificationFactory.create(client=api.client).pk)
    response = api.request(method, path)
    assert_problem(response, 405, "method-not-allowed")
    assert set(allowed.split(", ")) <= set(response["Allow"].split(", "))


@pytest.mark.parametrize("accept", ["text/csv", "application/xml", "image/png"])
def test_a_media_type_that_cannot_be_made_is_406(api: Api, accept: str) -> None:
    assert_problem(api.get(headers={"Accept": accept}), 406, "not-acceptable")


def test_accepting_anything_or_problem_json_gets_json(api: Api) -> None:
    for accept in ("*/*", "application/json", "application/*"):
        assert api.get(headers={"Accept": accept})["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml"],
)
def test_a_body_that_is_not_json_is_415(api: Api, content_type: str) -> None:
    assert_problem(api.post(BodyFactory.build(), content_type=content_type), 415, "unsupported-media-type")
    assert not Notification.objects.exists()


def test_json_with_a_charset_is_json(api: Api) -> None:
    assert api.post(BodyFactory.build(), content_type="application/json; charset=utf-8").status_code == 202


@pytest.mark.parametrize(("path", "limit"), [(URL, MIB), (f"{URL}/batch", 8 * MIB), (f"{URL}/batch/", 8 * MIB)])
def test_a_body_over_the_limit_is_413_by_its_declared_length_alone(api: Api, path: str, limit: int) -> None:
    refused = api.post("{}", path=path, CONTENT_LENGTH=str(limit + 1))
    problem = assert_problem(refused, 413, "body-too-large")
    assert str(limit) in problem["detail"]


@pytest.mark.parametrize(("path", "limit"), [(URL, MIB), (f"{URL}/batch", 8 * MIB)])
def test_a_body_of_exactly_the_limit_is_read(api: Api, path: str, limit: int) -> None:
    response = api.post("{}" + " " * (limit - 2), path=path)
    assert_problem(response, 400, "validation-failed")


def test_a_body_of_unknown_length_is_411(api: Api) -> None:
    response = api.post("{}", CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked")
    assert_problem(response, 411, "length-required")


@pytest.mark.parametrize("length", ["-1", "+1", "1e3", "²", "abc", "9" * 5000])
def test_a_length_that_is_no_number_is_400(api: Api, length: str) -> None:
    assert_problem(api.post("{}", CONTENT_LENGTH=length), 400, "bad-request")


def test_an_empty_body_is_400(api: Api) -> None:
    assert api.post("").status_code == 400
