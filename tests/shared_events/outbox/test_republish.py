"""`relay_outbox --republish-since`: what was published since a time is published again, and says that it is."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from shared_events.outbox.management.commands import relay_outbox
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.factories import OutboxEventFactory, ago

pytestmark = pytest.mark.django_db


def republish(since: str) -> str:
    out = StringIO()
    call_command("relay_outbox", "--republish-since", since, stdout=out)
    return out.getvalue().strip()


def test_what_was_published_since_is_due_again_and_the_rest_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_outbox, "REPUBLISH_BATCH", 2)
    since = [OutboxEventFactory.create(published_at=ago(minutes=5), publication=3).pk for _ in range(5)]
    OutboxEventFactory.create(published_at=ago(minutes=15))
    OutboxEventFactory.create(status="DEAD_LETTERED", published_at=None)
    assert republish(ago(minutes=10).isoformat()) == "5 events are due again"
    due = OutboxEvent.objects.filter(due_at__isnull=False)
    assert set(due.values_list("pk", "status", "publication")) == {(pk, "PENDING", 4) for pk in since}


@pytest.mark.parametrize(
    ("since", "words"),
    [
        ("yesterday", "is no time"),
        ("0001-01-01T00:00:00+14:00", "is no time"),
        ("2030-01-31T12:00:00", "has no offset"),
    ],
)
def test_a_time_that_is_none_or_could_be_anywhere_is_refused(since: str, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        republish(since)
