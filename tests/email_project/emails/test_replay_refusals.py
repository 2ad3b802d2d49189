"""What a replay leaves alone: not only its dry run says so."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from email_project.emails.models import SentEmail
from email_project.emails.outcomes import Kind
from email_project.emails.replay import MailReplayer
from email_project.emails.settlement import settle
from shared_events.dead_letters.models import AuditEntry, DeadLetter
from shared_events.dead_letters.replay import Order, Verdict, replay
from tests.email_project.factories import POLICY, TOKEN, ago, claimed, reports, result

pytestmark = pytest.mark.django_db
Status = SentEmail.Status
ORDER = Order("ops", "the mailbox exists now")


def failed() -> DeadLetter:
    mail = claimed()[0]
    settle([result(mail, Kind.FAILED)], TOKEN, POLICY)
    letter: DeadLetter = DeadLetter.objects.get()
    return letter


@pytest.mark.fault(58, 59)
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status": Status.SENT}, Verdict.ALREADY_SENT),
        ({"status": Status.UNCERTAIN}, Verdict.UNCERTAIN),
        ({"status": Status.RETRY_PENDING}, Verdict.SUPERSEDED),
        ({"send_before": ago(hours=1)}, Verdict.EXPIRED),
        ({"received_at": ago(days=46)}, Verdict.TOO_OLD),
    ],
)
def test_a_replay_leaves_what_must_not_be_sent_again_and_says_why(changes: dict[str, Any], said: Verdict) -> None:
    letter = failed()
    SentEmail.objects.update(**changes)
    before, reported = SentEmail.objects.values().get(), len(reports())
    assert [verdict for _, verdict in replay([letter], MailReplayer(), ORDER)] == [said]
    assert SentEmail.objects.values().get() == before
    assert (len(reports()), AuditEntry.objects.count()) == (reported, 0)
    assert DeadLetter.objects.get().is_open


class Overtaken(MailReplayer):
    """Another operator, who read the same page, replays right after this one has judged."""

    def judge(self, letters: Sequence[DeadLetter]) -> dict[UUID, Verdict]:
        verdicts = super().judge(letters)
        same_page = list(DeadLetter.objects.all())
        assert [verdict for _, verdict in replay(same_page, MailReplayer(), ORDER)] == [Verdict.REPLAY]
        return verdicts


@pytest.mark.fault(57)
def test_of_two_operators_who_judged_at_the_same_time_one_replays() -> None:
    assert [verdict for _, verdict in replay([failed()], Overtaken(), ORDER)] == [Verdict.DONE]
    assert (SentEmail.objects.get().generation, AuditEntry.objects.count()) == (1, 1)
    assert [type(report).__name__ for report in reports()] == ["EmailFailed", "EmailReplayed"]
