"""The admin reads, and acts only through transitions: each model's list and page, without a query for each row."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from notification_project.notifications.authentication import create_key
from notification_project.notifications.models import ApiClient, ApiKey, Notification
from shared_events.contracts.events import new_id
from shared_events.dead_letters.models import AuditEntry, DeadLetter
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.conftest import Api, new_api
from tests.notification_project.factories import (
    ApiClientFactory,
    DeadLetterFactory,
    NotificationFactory,
    OutboxEventFactory,
)

pytestmark = pytest.mark.django_db

READ_ONLY = [Notification, ApiKey, OutboxEvent, DeadLetter, AuditEntry]
ATTEMPT = {"n": 1, "at": "2030-01-01T00:00:00Z", "phase": "rcpt", "outcome": "failed", "reply": "<script>no</script>"}


@pytest.fixture
def staff() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="x"))
    return client


def make(model: type[Any], many: int) -> list[Any]:
    if model is Notification:
        return NotificationFactory.create_batch(many, attempts=[ATTEMPT])
    if model is OutboxEvent:
        return OutboxEventFactory.create_batch(many)
    if model is DeadLetter:
        return DeadLetterFactory.create_batch(many)
    if model is AuditEntry:
        entries = (
            AuditEntry(action="replay", operator="ops", subject_id=new_id(), reason="<b>why</b>") for _ in range(many)
        )
        return list(AuditEntry.objects.bulk_create(entries))
    clients = ApiClientFactory.create_batch(many)
    if model is ApiKey:
        for client in clients:
            create_key(client, ["read"])
    return list(model.objects.all())


def url(model: type[Any], page: str, *arguments: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=arguments)


def test_every_table_of_this_service_that_has_an_admin_is_tested_here() -> None:
    ours = {model for model in admin.site._registry if model._meta.app_label != "auth"}
    assert ours == {*READ_ONLY, ApiClient}


@pytest.mark.parametrize("model", [*READ_ONLY, ApiClient])
def test_list_and_page_are_shown_with_a_constant_number_of_queries(
    staff: Client, model: type[Any], count_statements: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    (row,) = make(model, 1)
    staff.get(url(model, "changelist"))
    with count_statements() as for_one:
        assert staff.get(url(model, "changelist")).status_code == 200
    make(model, 49)
    with count_statements() as for_fifty:
        listed = staff.get(url(model, "changelist"))
    assert listed.status_code == 200
    assert listed.context["cl"].result_count == 50
    assert len(for_fifty) <= len(for_one), for_fifty
    page = staff.get(url(model, "change", row.pk))
    assert page.status_code == 200
    assert b"<script>no</script>" not in page.content


@pytest.mark.parametrize("model", READ_ONLY)
def test_nothing_can_be_added_changed_or_deleted(staff: Client, model: type[Any]) -> None:
    (row,) = make(model, 1)
    before = model.objects.values().get()
    assert staff.get(url(model, "add")).status_code == 403
    assert staff.post(url(model, "change", row.pk), {"status": "SENT"}).status_code == 403
    assert staff.post(url(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    staff.post(url(model, "changelist"), {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"})
    assert model.objects.values().get() == before


def found(staff: Client, model: type[Any], term: object) -> set[Any]:
    response = staff.get(url(model, "changelist"), {"q": str(term)})
    assert response.status_code == 200
    return {row.pk for row in response.context["cl"].result_list}


def test_a_notification_is_found_by_id_recipient_and_reference(staff: Client) -> None:
    make(Notification, 3)
    row = NotificationFactory.create(recipient="ada@example.com", client_reference="order-4711")
    for term in (row.pk, row.pk.hex, "ada@example.com", "order-4711"):
        assert found(staff, Notification, term) == {row.pk}, term
    assert found(staff, Notification, "nothing") == set()


def test_a_key_is_found_by_its_prefix_and_its_clients_name(staff: Client) -> None:
    make(ApiKey, 2)
    row = ApiKey.objects.latest("pk")
    assert found(staff, ApiKey, row.prefix) == {row.pk}
    assert found(staff, ApiKey, row.client.name) == {row.pk}


@pytest.mark.parametrize("model", [OutboxEvent, DeadLetter])
def test_events_and_dead_letters_can_be_searched_with_any_words(staff: Client, model: type[Any]) -> None:
    make(model, 2)
    for term in ("nothing", "a b", "'", '"', "x" * 500, "ä"):
        assert found(staff, model, term) == set()


@pytest.mark.parametrize(
    ("model", "query", "many"),
    [(Notification, "status__exact=SENT", 1), (Notification, "status__exact=PENDING", 3), (Notification, "failure_class=size", 1),
     (OutboxEvent, "status__exact=PUBLISHED", 2), (DeadLetter, "letter_class=unreadable", 2), (DeadLetter, "replayed_at__isempty=1", 2),
     (ApiKey, "revoked_at__isempty=0", 0)],
)  # fmt: skip
def test_filters_narrow_the_lists(staff: Client, model: type[Any], query: str, many: int) -> None:
    for kind in (Notification, OutboxEvent, DeadLetter, ApiKey):
        make(kind, 2)
    NotificationFactory.create(status="SENT")
    NotificationFactory.create(failure_class="size")
    response = staff.get(f"{url(model, 'changelist')}?{query}")
    assert response.status_code == 200
    assert len(response.context["cl"].result_list) == many


def run_action(staff: Client, model: type[Any], action: str, row: Any) -> str:
    response = staff.post(url(model, "changelist"), {"action": action, "_selected_action": [row.pk]}, follow=True)
    return " ".join(str(message) for message in response.context["messages"])


def test_a_key_made_in_the_admin_is_shown_once_and_works(staff: Client) -> None:
    client = ApiClientFactory.create()
    words = run_action(staff, ApiClient, "make_key", client)
    key = words.rpartition(" ")[2]
    assert Api(client, key).get().status_code == 200
    run_action(staff, ApiClient, "make_key", client)
    assert "two live keys already" in run_action(staff, ApiClient, "make_key", client)
    assert ApiKey.objects.count() == 2


def test_revoking_ends_a_key_at_once(staff: Client) -> None:
    api = new_api()
    assert "1 revoked" in run_action(staff, ApiKey, "revoke", ApiKey.objects.get())
    assert api.get().status_code == 401
    assert "0 revoked" in run_action(staff, ApiKey, "revoke", ApiKey.objects.get())


def test_staff_without_the_permission_revoke_nothing(db: None) -> None:
    api = new_api()
    user = User.objects.create_user("viewer", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_apikey"))
    client = Client()
    client.force_login(user)
    run_action(client, ApiKey, "revoke", ApiKey.objects.get())
    assert api.get().status_code == 200


def test_a_client_can_be_made_and_not_deleted(staff: Client) -> None:
    staff.post(url(ApiClient, "add"), {"name": "shop"})
    row = ApiClient.objects.get(name="shop")
    assert staff.post(url(ApiClient, "delete", row.pk), {"post": "yes"}).status_code == 403


def test_strangers_are_sent_to_the_login(db: None) -> None:
    response = Client().get("/admin/notifications/notification/")
    assert (response.status_code, response["Location"].split("?")[0]) == (302, "/admin/login/")


def test_pages_that_do_not_exist_are_pages_in_the_admin(staff: Client) -> None:
    response = staff.get("/admin/nothing/at/all/")
    assert (response.status_code, response["Content-Type"]) == (404, "text/html; charset=utf-8")
