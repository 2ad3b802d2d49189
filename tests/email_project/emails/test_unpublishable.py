"""A status event that can never be published leaves a dead letter, and the mail as it is."""

import pytest
from django.conf import settings
from django.utils.module_loading import import_string

from email_project.emails.models import SentEmail
from email_project.emails.outcomes import Kind
from email_project.emails.settlement import settle
from shared_events.dead_letters.models import DeadLetter
from shared_events.outbox.models import OutboxEvent
from tests.email_project.factories import POLICY, TOKEN, claimed, result
from tests.shared_events.outbox.factories import TOO_LARGE, Relaying, ScriptedProducer

pytestmark = pytest.mark.django_db


def test_the_settings_hook_keeps_the_event_and_changes_no_mail() -> None:
    mail = claimed()[0]
    settle([result(mail, Kind.SENT)], TOKEN, POLICY)
    payload = bytes(OutboxEvent.objects.get().payload)
    relaying = Relaying(ScriptedProducer(lambda _record: TOO_LARGE), max_attempts=1)
    relaying.relay._unpublishable = import_string(settings.OUTBOX_UNPUBLISHABLE)
    relaying.relay.run_once()
    letter = DeadLetter.objects.get()
    assert (letter.letter_class, letter.notification_id, bytes(letter.original or b"")) == (
        "unpublishable",
        mail.id,
        payload,
    )
    assert SentEmail.objects.get().status == SentEmail.Status.SENT
    kinds = set(OutboxEvent.objects.values_list("event_type", "status"))
    assert kinds == {("EMAIL_SENT", "DEAD_LETTERED"), ("DEAD_LETTER_RECORDED", "PENDING")}


@pytest.mark.fault(56)
def test_the_event_of_a_dead_letter_that_is_given_up_ends_there() -> None:
    mail = claimed()[0]
    settle([result(mail, Kind.FAILED)], TOKEN, POLICY)
    OutboxEvent.objects.exclude(event_type="DEAD_LETTER_RECORDED").delete()
    relaying = Relaying(ScriptedProducer(lambda _record: TOO_LARGE), max_attempts=1)
    relaying.relay._unpublishable = import_string(settings.OUTBOX_UNPUBLISHABLE)
    relaying.relay.run_once()
    assert (DeadLetter.objects.count(), OutboxEvent.objects.get().status) == (1, "DEAD_LETTERED")
