"""What the e-mail service does with its dead letters when they are replayed."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db.models import F
from django.db.models.functions import Now

from shared_events.contracts.events import AnyStatus, now
from shared_events.contracts.topics import NOTIFICATION_STATUS
from shared_events.dead_letters.models import DeadLetter
from shared_events.dead_letters.replay import SupersededError, Verdict, is_readable, record_of
from shared_events.outbox.models import OutboxEvent
from shared_events.outbox.wakeup import WakeUp

from .intake import Intake, NoPool
from .models import Restore, SentEmail
from .reports import report_of
from .resolution import replayed

Status = SentEmail.Status


class MailReplayer:
    """A failed mail is due again, never through intake; a parked record goes through the same handler as from Kafka."""

    def __init__(self) -> None:
        self._wake_up = WakeUp(settings.REDIS_URL, settings.PRODUCER)

    def judge(self, letters: Sequence[DeadLetter]) -> dict[UUID, Verdict]:
        ids = {letter.notification_id for letter in letters if letter.notification_id is not None}
        mails = {mail.pk: mail for mail in SentEmail.objects.filter(pk__in=ids).defer("message", "html", "attempts")}
        return {letter.pk: self._judge(letter, mails.get(letter.subject_id)) for letter in letters}

    def replay(self, letter: DeadLetter) -> None:
        record = record_of(letter)
        if record is not None:
            Intake(NoPool(), ring=lambda: None).handle([record])
        elif letter.letter_class == "unpublishable":
            self._report([report_of(SentEmail.objects.get(pk=letter.subject_id))])
        else:
            self._send_again(letter)

    def done(self) -> None:
        self._wake_up.ring()

    def _judge(self, letter: DeadLetter, mail: SentEmail | None) -> Verdict:
        if letter.letter_class == "too_old":
            return Verdict.UNCERTAIN
        if letter.source_topic is not None:
            return Verdict.REPLAY if is_readable(letter) else Verdict.UNREADABLE
        if mail is None:
            return Verdict.TOO_OLD
        if letter.letter_class == "unpublishable":
            return Verdict.REPLAY
        return self._judge_failed(letter, mail)

    def _judge_failed(self, letter: DeadLetter, mail: SentEmail) -> Verdict:
        if mail.status == Status.SENT:
            return Verdict.ALREADY_SENT
        if mail.status == Status.UNCERTAIN:
            return Verdict.UNCERTAIN
        if mail.status != Status.FAILED or mail.generation != letter.generation:
            return Verdict.SUPERSEDED
        if mail.send_before is not None and mail.send_before <= now():
            return Verdict.EXPIRED
        if now() - mail.received_at > timedelta(days=settings.SENT_EMAILS_RETENTION_DAYS / 2):
            return Verdict.TOO_OLD
        return Verdict.REPLAY

    def _send_again(self, letter: DeadLetter) -> None:
        """Of a letter from before the last restore nobody knows whether it was replayed since, and sent: a replay may be a second copy."""
        restore: Restore | None = Restore.objects.order_by("pk").last()
        is_restored = restore is not None and letter.created_at < restore.restored_at
        changed = SentEmail.objects.filter(
            pk=letter.subject_id, status=Status.FAILED, generation=letter.generation
        ).update(
            status=Status.RETRY_PENDING,
            generation=F("generation") + 1,
            status_version=F("status_version") + 1,
            retry_count=0,
            crashes=0,
            due_at=Now(),
            failure_class="",
            failure_code="",
            failure_detail="",
            possible_duplicates=F("possible_duplicates") + int(is_restored),
        )
        if not changed:
            raise SupersededError
        self._report([replayed(SentEmail.objects.get(pk=letter.subject_id))])

    def _report(self, reports: Sequence[AnyStatus]) -> None:
        OutboxEvent.objects.bulk_create([OutboxEvent.of(report, NOTIFICATION_STATUS) for report in reports])
