"""The action "Resolve…" of the notifications' console stores the request that the API stores, and GET says that it is on its way."""

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from notification_project.notifications.models import Notification
from notification_project.notifications.resolution import request_resolution
from shared_events.contracts.events import EmailResolutionRequested, decode
from shared_events.dead_letters.models import AuditEntry
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.conftest import URL, Api
from tests.notification_project.factories import NotificationFactory, ago

pytestmark = pytest.mark.django_db
PATH = reverse("admin:notifications_notification_changelist")
HELD = "held until an operator says whether it arrived"


@pytest.fixture
def staff() -> Client:
    return logged_in("ada", "view_notification", "change_notification")


def logged_in(name: str, *permissions: str) -> Client:
    user = User.objects.create_user(name, password="long enough for anyone", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def uncertain(**fields: Any) -> Notification:
    said = {"phase": "reply", "since": "2026-01-01T00:00:00Z", "host": "relay", "message_id": "<a@b>", "next": HELD}
    row: Notification = NotificationFactory.create(
        **{"status": "UNCERTAIN", "status_version": 1, "uncertain": said, **fields}
    )
    return row


def ask(client: Client, *rows: Notification) -> Any:
    return client.post(PATH, {"action": "resolve_rows", "_selected_action": [str(row.pk) for row in rows]})


def answer(client: Client, page: Any, resolution: str) -> str:
    form: dict[str, Any] = {"action": "resolve_rows", "confirmed": "yes", "reason": "the recipient has it"}
    form["_selected_action"] = [str(item["row"].pk) for item in page.context["rows"]]
    form |= {f"seen_{item['row'].pk}": item["seen"] for item in page.context["rows"]}
    response = client.post(PATH, {**form, "resolution": resolution}, follow=True)
    return " ".join(str(message) for message in response.context.get("messages", ()))


def requests() -> list[Any]:
    return [decode(bytes(event.payload)) for event in OutboxEvent.objects.order_by("pk")]


def test_a_request_is_stored_and_audited_and_uncertain_stands(staff: Client) -> None:
    row = uncertain(generation=2)
    assert answer(staff, ask(staff, row), "resend") == "1 requested of the e-mail service (resend)."
    (event,) = requests()
    assert isinstance(event, EmailResolutionRequested)
    assert (event.notification_id, event.resolution, event.generation) == (row.pk, "resend", 2)
    assert (event.operator, event.reason) == ("staff:ada", "the recipient has it")
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.subject_id, entry.operator) == ("resolve", row.pk, "staff:ada")
    row.refresh_from_db()
    assert row.status == "UNCERTAIN"


def test_a_reason_that_is_too_long_for_its_column_is_cut(staff: Client) -> None:
    request_resolution(uncertain(), "resend", reason="ä" * 600, operator="ops")
    assert (len(requests()[0].reason), len(AuditEntry.objects.get().reason)) == (500, 500)


def test_the_page_shows_what_the_relay_hosts_log_is_searched_by(staff: Client) -> None:
    page = ask(staff, uncertain()).content.decode()
    assert "<td>reply</td><td>relay</td><td>&lt;a@b&gt;</td>" in page
    assert "It is not known whether these mails arrived." in page


@pytest.mark.fault(57)
def test_of_two_operators_the_second_is_told_and_requests_nothing(staff: Client) -> None:
    other = logged_in("eve", "view_notification", "change_notification")
    row = uncertain()
    pages = ask(staff, row), ask(other, row)
    answer(staff, pages[0], "delivered")
    assert answer(other, pages[1], "resend").startswith("1 skipped")
    assert (len(requests()), AuditEntry.objects.count()) == (1, 1)


@pytest.mark.fault(57)
def test_an_answer_does_not_hold_for_a_later_generation(staff: Client) -> None:
    row = uncertain()
    page = ask(staff, row)
    Notification.objects.filter(pk=row.pk).update(generation=1)
    assert answer(staff, page, "delivered").startswith("1 skipped")
    assert requests() == []


def test_a_request_on_its_way_is_shown_and_may_be_repeated_where_it_was_lost(staff: Client) -> None:
    row = uncertain()
    answer(staff, ask(staff, row), "delivered")
    page = ask(staff, row)
    assert "resolution requested: delivered at " in page.content.decode()
    assert answer(staff, page, "delivered").startswith("1 requested")
    assert len(requests()) == 2


def test_what_is_not_uncertain_is_skipped_and_said(staff: Client) -> None:
    rows = [uncertain(), uncertain(status="SENT"), uncertain(status="PENDING", send_before=ago(hours=1))]
    page = ask(staff, *rows)
    assert page.content.decode().count("not uncertain</strong>") == 2
    assert "2 skipped" in answer(staff, page, "not_delivered")
    assert len(requests()) == 1


def test_without_the_right_to_change_there_is_no_such_action() -> None:
    viewer = logged_in("vera", "view_notification")
    row = uncertain()
    assert "Resolve…" not in viewer.get(PATH).content.decode()
    form = {"action": "resolve_rows", "_selected_action": [str(row.pk)], "confirmed": "yes", "reason": "x"}
    viewer.post(PATH, {**form, f"seen_{row.pk}": "0 ", "resolution": "delivered"})
    assert requests() == []


def test_get_says_what_happens_next_while_a_request_is_on_its_way(api: Api) -> None:
    row = uncertain(client=api.client)
    before = api.get(f"{URL}/{row.pk}")
    assert before.json()["uncertain"]["next"] == HELD
    body = {"resolution": "delivered", "reason": "seen in the log"}
    answered = api.post(body, path=f"{URL}/{row.pk}/resolve").json()
    shown = api.get(f"{URL}/{row.pk}", headers={"If-None-Match": before["ETag"]}).json()
    for view in (answered, shown):
        assert view["uncertain"]["next"].startswith("resolution requested: delivered at 20")
        assert view["uncertain"]["next"].endswith("Z, on its way to the e-mail service")
        assert view["uncertain"]["phase"] == "reply"
