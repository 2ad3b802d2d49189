"""The action "Resolve…" of the e-mail service's console: asked first, then done with its report and its audit entry, once."""

from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from django.contrib.auth.models import Permission, User
from django.db import OperationalError
from django.test import Client
from django.urls import reverse

from email_project.emails.models import SentEmail
from shared_events.dead_letters.models import AuditEntry, DeadLetter
from shared_events.outbox.models import OutboxEvent
from tests.email_project.factories import ago, reports, store
from tests.email_project.senders import state, status

pytestmark = pytest.mark.django_db
Status = SentEmail.Status
PATH = reverse("admin:emails_sentemail_changelist")


def logged_in(name: str, *permissions: str) -> Client:
    user = User.objects.create_user(name, password="long enough for anyone", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def staff() -> Client:
    return logged_in("ada", "view_sentemail", "change_sentemail")


def uncertain(count: int = 1, **fields: Any) -> list[UUID]:
    held = {"status": Status.UNCERTAIN, "status_version": 1, "due_at": None, "uncertain_since": ago(hours=1)}
    return store(count, **{**held, **fields})


def ask(client: Client, *keys: UUID) -> Any:
    return client.post(PATH, {"action": "resolve_rows", "_selected_action": [str(key) for key in keys]})


def form_of(page: Any, **answers: str) -> dict[str, Any]:
    """What a browser sends for the confirm page."""
    form: dict[str, Any] = {"action": "resolve_rows", "confirmed": "yes", "reason": "seen in the server's log"}
    form["_selected_action"] = [str(item["row"].pk) for item in page.context["rows"]]
    form |= {f"seen_{item['row'].pk}": item["seen"] for item in page.context["rows"]}
    return {**form, **answers}


def answer(client: Client, page: Any, resolution: str, **answers: str) -> str:
    response = client.post(PATH, form_of(page, resolution=resolution, **answers), follow=True)
    return " ".join(str(message) for message in response.context.get("messages", ()))


@pytest.mark.parametrize(
    ("resolution", "expected", "report"),
    [
        ("delivered", Status.SENT, "EmailSent"),
        ("not_delivered", Status.FAILED, "EmailFailed"),
        ("resend", Status.RETRY_PENDING, "EmailReplayed"),
    ],
)
def test_a_resolution_is_written_with_its_report_and_its_audit_entry(
    staff: Client, resolution: str, expected: str, report: str
) -> None:
    (pk,) = uncertain()
    assert answer(staff, ask(staff, pk), resolution) == f"1 resolved ({resolution})."
    assert (status(pk), state(pk).generation, state(pk).status_version) == (expected, 1, 2)
    assert [(type(said).__name__, said.generation) for said in reports()] == [(report, 1)]
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.subject_id, entry.detail) == ("resolve", pk, resolution)
    assert (entry.operator, entry.reason) == ("staff:ada", "seen in the server's log")


def test_the_page_shows_what_the_relay_hosts_log_is_searched_by(staff: Client) -> None:
    page = ask(staff, *uncertain(uncertain_phase="restored", uncertain_host="mx", message_id="<a@b>")).content.decode()
    assert "<td>restored</td><td>mx</td><td>&lt;a@b&gt;</td>" in page


def test_the_page_shows_what_each_answer_would_do_and_changes_nothing(staff: Client) -> None:
    uncertain_one, late = uncertain(possible_duplicates=2)[0], uncertain(send_before=ago(minutes=1))[0]
    (sent,) = store(status=Status.SENT, due_at=None)
    page = ask(staff, uncertain_one, late, sent)
    text = page.content.decode()
    assert "sent again; copies beyond one: 2 → 3" in text
    assert "uncertain again: its send_before has passed" in text
    assert "skipped: it is SENT, not uncertain" in text
    assert text.count("FAILED; its dead letter can be replayed") == 2
    assert {status(pk) for pk in (uncertain_one, late)} == {Status.UNCERTAIN}
    assert not OutboxEvent.objects.exists()


@pytest.mark.parametrize("missing", [{"reason": " "}, {"resolution": ""}, {"resolution": "maybe"}])
def test_without_an_answer_and_a_reason_nothing_is_changed(staff: Client, missing: dict[str, str]) -> None:
    (pk,) = uncertain()
    form = form_of(ask(staff, pk), **{"resolution": "delivered", **missing})
    assert "Nothing was changed: choose what happened" in staff.post(PATH, form).content.decode()
    assert (status(pk), AuditEntry.objects.count()) == (Status.UNCERTAIN, 0)


@pytest.mark.fault(57)
def test_of_two_operators_the_second_is_told_and_changes_nothing(staff: Client) -> None:
    other = logged_in("eve", "view_sentemail", "change_sentemail")
    (pk,) = uncertain()
    pages = ask(staff, pk), ask(other, pk)
    assert answer(staff, pages[0], "not_delivered") == "1 resolved (not_delivered)."
    assert answer(other, pages[1], "resend").startswith("1 skipped: not uncertain any more")
    assert (status(pk), AuditEntry.objects.count(), len(reports())) == (Status.FAILED, 1, 1)


@pytest.mark.fault(57)
def test_an_answer_does_not_hold_for_a_later_generation(staff: Client) -> None:
    (pk,) = uncertain()
    page = ask(staff, pk)
    SentEmail.objects.filter(pk=pk).update(generation=1)  # sent again meanwhile, and uncertain again
    assert answer(staff, page, "delivered").startswith("1 skipped")
    assert (status(pk), AuditEntry.objects.count()) == (Status.UNCERTAIN, 0)


def test_what_is_not_uncertain_is_skipped_and_said(staff: Client) -> None:
    (pk,) = uncertain()
    others = [store(status=each, due_at=None)[0] for each in (Status.SENT, Status.FAILED)]
    said = answer(staff, ask(staff, pk, *others), "delivered")
    assert said == ("1 resolved (delivered). 2 skipped: not uncertain any more, or somebody was faster. Look again.")
    assert AuditEntry.objects.count() == 1


def test_without_the_right_to_change_there_is_no_such_action() -> None:
    viewer = logged_in("vera", "view_sentemail")
    (pk,) = uncertain()
    assert "Resolve…" not in viewer.get(PATH).content.decode()
    form = {
        "action": "resolve_rows",
        "_selected_action": [str(pk)],
        "confirmed": "yes",
        "reason": "x",
        f"seen_{pk}": "0",
    }
    viewer.post(PATH, {**form, "resolution": "delivered"})
    assert (status(pk), AuditEntry.objects.count()) == (Status.UNCERTAIN, 0)


@pytest.mark.django_db(transaction=True)
def test_where_the_audit_cannot_be_written_nothing_is_resolved(staff: Client) -> None:
    (pk,) = uncertain()
    page = ask(staff, pk)
    away = OperationalError(2013, "Lost connection during query")
    with patch.object(AuditEntry.objects, "create", side_effect=away), pytest.raises(OperationalError):
        answer(staff, page, "not_delivered")
    assert (status(pk), state(pk).generation, OutboxEvent.objects.count()) == (Status.UNCERTAIN, 0, 0)
    assert not DeadLetter.objects.exists()


def test_hundreds_of_mails_fit_into_one_form(staff: Client) -> None:
    uncertain(230)
    page = staff.post(PATH, {"action": "resolve_rows", "select_across": "1", "_selected_action": [str(uncertain()[0])]})
    assert "Only the first 200 are shown and resolved; 31 more are chosen." in page.content.decode()
    assert answer(staff, page, "delivered") == "200 resolved (delivered)."
    assert SentEmail.objects.filter(status=Status.UNCERTAIN).count() == 31
