"""The console and the read API: staff see everything, and change nothing."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from email_project.emails.models import SentEmail
from email_project.emails.outcomes import Kind
from email_project.emails.settlement import settle
from shared_events.dead_letters.models import DeadLetter, record_dead_letters
from shared_events.outbox.models import OutboxEvent
from tests.email_project.factories import POLICY, TOKEN, attempts, claimed, record, result, store
from tests.shared_events.probes import counted_sql

pytestmark = pytest.mark.django_db
LIST = "/api/v1/sent-emails"
Status = SentEmail.Status


@pytest.fixture
def staff() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("ada", password="long enough for anyone"))
    return client


@pytest.fixture
def stranger() -> Client:
    client = Client()
    client.force_login(User.objects.create_user("eve", password="long enough for anyone"))
    return client


def text(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def admin_path(model: str, view: str = "changelist", *arguments: Any) -> str:
    return reverse(f"admin:{model}_{view}", args=arguments)


def fill() -> None:
    """A row of each table."""
    mail = claimed()[0]
    settle([result(mail, Kind.FAILED)], TOKEN, POLICY)
    letter = DeadLetter.of_record(record(b"\xff\x00<b>"), letter_class="unreadable", cause="malformed")
    record_dead_letters([letter], topic="email-dlq-topic", producer="email-service")


@pytest.mark.parametrize("model", ["emails_sentemail", "outbox_outboxevent", "dead_letters_deadletter"])
def test_each_table_has_its_list_and_its_details(staff: Client, model: str) -> None:
    fill()
    listed = text(staff, admin_path(model))
    details = set(re.findall(rf'href="({re.escape(admin_path(model))}[^"?]+/change/)', listed))
    assert details
    for path in details:
        text(staff, path)


@pytest.mark.parametrize("model", ["emails_sentemail", "outbox_outboxevent", "dead_letters_deadletter"])
def test_nothing_can_be_added_changed_or_deleted(staff: Client, model: str) -> None:
    fill()
    table: Any = {"emails": SentEmail, "outbox": OutboxEvent, "dead": DeadLetter}[model.partition("_")[0]]
    pk, before = table.objects.first().pk, list(table.objects.values())
    assert staff.get(admin_path(model, "add")).status_code == 403
    assert staff.post(admin_path(model, "change", pk), {"status": "SENT"}).status_code == 403
    assert staff.post(admin_path(model, "delete", pk), {"post": "yes"}).status_code == 403
    assert list(table.objects.values()) == before


@pytest.mark.parametrize("model", ["emails_sentemail", "outbox_outboxevent", "dead_letters_deadletter"])
def test_a_strangers_way_ends_at_the_login(stranger: Client, model: str) -> None:
    for client in (stranger, Client()):
        response = client.get(admin_path(model))
        assert (response.status_code, response.headers["Location"].partition("?")[0]) == (302, "/admin/login/")


def test_a_mails_page_shows_its_attempts_in_the_servers_words(staff: Client) -> None:
    made = attempts(2, reply="4.3.0 <script>Later</script>", enhanced_code="4.3.0")
    pk = store(attempts=made, status=Status.RETRY_PENDING)[0]
    page = text(staff, admin_path("emails_sentemail", "change", pk))
    assert page.count("4.3.0 &lt;script&gt;Later&lt;/script&gt;") == 2
    assert "<script>Later" not in page
    assert page.count("relay.test") == 2


def test_a_list_of_any_length_costs_the_same_statements(staff: Client) -> None:
    store(2)
    with counted_sql() as few:
        text(staff, admin_path("emails_sentemail"))
    store(40)
    with counted_sql() as many:
        text(staff, admin_path("emails_sentemail"))
    assert len(few.statements) == len(many.statements)


def test_a_mail_is_found_by_its_whole_recipient(staff: Client) -> None:
    found, other = store(recipient="ada@example.com")[0], store(recipient="eve@example.com")[0]
    page = text(staff, admin_path("emails_sentemail") + "?q=ada@example.com")
    assert str(found) in page
    assert str(other) not in page


def test_a_mail_is_found_by_its_whole_id(staff: Client) -> None:
    found, other = store(2)
    page = text(staff, admin_path("emails_sentemail") + f"?q={found}")
    assert str(found) in page
    assert str(other) not in page


# ---- the read API


def test_the_api_lists_the_newest_first_without_bodies(staff: Client) -> None:
    ids = store(3, message="a secret of two")
    page = staff.get(LIST).json()
    assert [mail["id"] for mail in page["results"]] == [str(pk) for pk in reversed(ids)]
    assert "a secret of two" not in str(page)
    assert (page["results"][0]["status"], page["results"][0]["attempts"]) == ("PROCESSING", [])


def test_the_api_pages_through_all_of_them_once(staff: Client) -> None:
    ids = store(120)
    found, path = [], LIST
    while path:
        page = staff.get(path).json()
        found += [mail["id"] for mail in page["results"]]
        path = page["next"]
    assert found == [str(pk) for pk in reversed(ids)]


def test_the_api_shows_one_and_404_for_none(staff: Client) -> None:
    pk = store(attempts=attempts(1), retry_count=1)[0]
    mail = staff.get(f"{LIST}/{pk}").json()
    assert (mail["id"], mail["retry_count"], mail["attempts"][0]["code"]) == (str(pk), 1, 451)
    assert staff.get(f"{LIST}/0198a7c0-0000-7000-8000-000000000009").status_code == 404


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_the_api_changes_nothing(staff: Client, method: str) -> None:
    pk = store()[0]
    before = SentEmail.objects.values().get()
    for path in (LIST, f"{LIST}/{pk}"):
        response = getattr(staff, method)(path, {"status": "SENT"}, content_type="application/json")
        assert response.status_code == 405
    assert SentEmail.objects.values().get() == before


def test_the_api_is_for_staff_alone(stranger: Client) -> None:
    pk = store()[0]
    for path in (LIST, f"{LIST}/{pk}"):
        assert stranger.get(path).status_code == 403
        assert Client().get(path).status_code in {401, 403}


def test_a_page_of_the_api_costs_the_same_statements_for_any_length(staff: Client) -> None:
    store(2)
    with counted_sql() as few:
        staff.get(LIST)
    store(48)
    with counted_sql() as many:
        staff.get(LIST)
    assert len(few.statements) == len(many.statements)
