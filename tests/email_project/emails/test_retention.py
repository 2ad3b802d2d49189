"""What prune deletes and keeps, and the invariants of the tables."""

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from email_project.emails.models import SentEmail
from shared_events.contracts.events import id_at, new_id
from shared_events.dead_letters.models import DeadLetter
from tests.email_project.factories import ago, store

pytestmark = pytest.mark.django_db

Status = SentEmail.Status


def old(status: str, **fields: Any) -> Any:
    """A mail of a hundred days ago."""
    moment = ago(days=100)
    pk = id_at(moment)
    pk = type(pk)(int=pk.int + new_id().int % 2**60)
    return store(
        id=pk,
        status=status,
        status_version=1,
        due_at=None,
        settled_at=moment,
        sent_at=moment,
        failure_class="recipient",
        **fields,
    )[0]


def letter_of(mail: Any, **fields: Any) -> DeadLetter:
    letter = DeadLetter.of_notification(mail, 0, letter_class="recipient", cause="5.1.1", original=b"{}")
    for name, value in fields.items():
        setattr(letter, name, value)
    letter.save(force_insert=True)
    return letter


def prune() -> None:
    call_command("prune", stdout=StringIO())


@pytest.mark.fault(63)
def test_a_sent_mail_past_its_retention_is_deleted_and_a_young_one_is_not() -> None:
    gone, young = (
        old(Status.SENT),
        store(status=Status.SENT, status_version=1, due_at=None, settled_at=ago(days=1), sent_at=ago(days=1))[0],
    )
    prune()
    assert not SentEmail.objects.filter(pk=gone).exists()
    assert SentEmail.objects.filter(pk=young).exists()


@pytest.mark.fault(63)
@pytest.mark.parametrize("status", [Status.PROCESSING, Status.RETRY_PENDING, Status.UNCERTAIN])
def test_what_is_not_final_is_never_deleted(status: str) -> None:
    mail = old(status)
    prune()
    assert SentEmail.objects.filter(pk=mail).exists()


@pytest.mark.fault(63)
def test_a_failure_stays_until_its_dead_letter_is_replayed_or_dismissed() -> None:
    mail = old(Status.FAILED)
    letter = letter_of(mail)
    prune()
    assert SentEmail.objects.filter(pk=mail).exists()
    DeadLetter.objects.filter(pk=letter.pk).mark_dismissed()
    prune()
    assert not SentEmail.objects.filter(pk=mail).exists()


def test_a_mail_that_was_settled_lately_is_kept_whatever_its_age() -> None:
    mail = old(Status.SENT)
    SentEmail.objects.filter(pk=mail).update(settled_at=ago(days=1))
    prune()
    assert SentEmail.objects.filter(pk=mail).exists()


@pytest.mark.fault(63)
def test_prune_goes_on_over_many_small_batches() -> None:
    for _ in range(7):
        old(Status.SENT)
    call_command("prune", "--batch", "2", stdout=StringIO())
    assert not SentEmail.objects.exists()


def consistency() -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("check_consistency", stdout=out, stderr=StringIO())
    except SystemExit as end:
        return int(str(end.code)), out.getvalue()
    return 0, out.getvalue()


def test_sound_tables_hold_every_invariant() -> None:
    store(status=Status.SENT, status_version=1, due_at=None, sent_at=ago(days=1))
    code, table = consistency()
    assert code == 0
    assert "BROKEN" not in table


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"due_at": None}, "every open mail is due"),
        ({"status": Status.SENT, "status_version": 1, "sent_at": ago(days=1)}, "no settled mail is due"),
        ({"status": Status.SENT, "status_version": 1, "due_at": None}, "every SENT one has its time"),
        (
            {"status": Status.FAILED, "status_version": 1, "due_at": None, "failure_class": "policy"},
            "every FAILED one has its dead letter",
        ),
        ({"status": Status.UNCERTAIN, "status_version": 1, "due_at": None}, "every held one"),
    ],
)
def test_a_broken_invariant_is_named_with_a_row_and_exit_code_1(fields: dict[str, Any], sentence: str) -> None:
    mail = store(**fields)[0]
    code, table = consistency()
    broken = [line for line in table.splitlines() if "BROKEN" in line]
    assert code == 1
    assert any(line.startswith(sentence) and str(mail) in line for line in broken), table


@pytest.mark.parametrize("batch", ["0", "-5"])
def test_a_batch_of_no_rows_is_refused(batch: str) -> None:
    with pytest.raises(CommandError, match=f"--batch {batch} is no number of rows"):
        call_command("prune", "--batch", batch)
