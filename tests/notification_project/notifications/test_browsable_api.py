"""The API in a browser, and its description."""

import json
import re
from html import unescape
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from notification_project.notifications.models import Notification
from tests.notification_project.conftest import URL, Api
from tests.notification_project.factories import BodyFactory, NotificationFactory

pytestmark = pytest.mark.django_db
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def browser() -> Client:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root", password="x"))
    return client


def test_staff_see_every_page_as_html(browser: Client) -> None:
    row = NotificationFactory.create()
    for path in (URL, f"{URL}/{row.pk}", f"{URL}/{row.pk}/events"):
        response = browser.get(path, headers=HTML)
        assert (response.status_code, response["Content-Type"]) == (200, "text/html; charset=utf-8"), path
        assert str(row.pk) in unescape(response.content.decode())


def test_the_root_leads_to_the_notifications(browser: Client) -> None:
    assert browser.get("/")["Location"] == URL


@pytest.mark.parametrize("headers", [HTML, {"Accept": "application/json"}, {}])
def test_strangers_get_401_in_a_browser_too(headers: dict[str, str]) -> None:
    response = Client().get(URL, headers=headers)
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == 'Bearer realm="notifyx"'


def test_a_session_posts_only_with_its_csrf_token(browser: Client) -> None:
    refused = browser.post(URL, json.dumps(BodyFactory.build()), content_type="application/json")
    assert (refused.status_code, refused.json()["code"]) == (403, "permission-denied")
    browser.get(URL, headers=HTML)
    token = browser.cookies["csrftoken"].value
    accepted = browser.post(
        URL, json.dumps(BodyFactory.build()), content_type="application/json", headers={"X-CSRFToken": token}
    )
    assert accepted.status_code == 202
    assert Notification.objects.count() == 1


def test_the_page_has_a_form_for_those_who_may_send(browser: Client) -> None:
    assert "_content" in browser.get(URL, headers=HTML).content.decode()
    browser.force_login(User.objects.create_user("reader", password="x", is_staff=True))
    assert "_content" not in browser.get(URL, headers=HTML).content.decode()


def test_an_error_in_a_browser_is_a_page_with_the_problem(browser: Client) -> None:
    response = browser.get(f"{URL}?limit=x", headers=HTML)
    assert response.status_code == 400
    assert "validation-failed" in response.content.decode()


def test_the_document_is_valid_and_complete() -> None:
    out = StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", "--format", "openapi-json", stdout=out)
    document: dict[str, Any] = json.loads(out.getvalue())
    assert document["openapi"].startswith("3.1")
    operations = {(path, method) for path, item in document["paths"].items() for method in item}
    base = "/api/v1/notifications"
    assert operations == {
        (base, "get"), (base, "post"), (f"{base}/batch", "post"), (f"{base}/{{id}}", "get"), (f"{base}/{{id}}/events", "get"),
        (f"{base}/{{id}}/cancel", "post"), (f"{base}/{{id}}/resolve", "post"),
    }  # fmt: skip
    answers = document["paths"][base]["post"]["responses"]
    assert set(answers) >= {"202", "400", "401", "403", "409", "413", "415", "422", "429", "503"}
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"


def test_the_document_describes_what_is_answered(api: Api) -> None:
    document = api.http.get("/api/v1/schema/", headers={"Accept": "application/vnd.oai.openapi+json"}).json()
    described = document["components"]["schemas"]["Notification"]["properties"]
    assert set(described) == set(api.post(BodyFactory.build()).json())
    request = document["components"]["schemas"]["NotificationRequest"]
    assert set(request["required"]) == {"recipient", "subject", "message"}


def test_strangers_may_read_the_document_and_its_page() -> None:
    for path in ("/api/v1/schema/", "/api/v1/schema/swagger/"):
        assert Client().get(path).status_code == 200


def test_the_page_of_the_document_loads_nothing_from_outside() -> None:
    page = Client().get("/api/v1/schema/swagger/").content.decode()
    links = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)""", page)
    assert any(link.endswith(".js") for link in links)
    assert [link for link in links if re.match(r"(\w+:)?//", link)] == []
