"""Writing down what became of mails: the row, its status event and its dead letter in one transaction."""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from shared_events.contracts import topics
from shared_events.contracts.events import (
    AnyStatus,
    Attempt,
    EmailDeferred,
    EmailFailed,
    EmailSent,
    EmailUncertain,
    Failure,
)
from shared_events.dead_letters.models import DeadLetter, record_dead_letters
from shared_events.outbox.bulk import per_row
from shared_events.outbox.claim import in_seconds
from shared_events.outbox.models import OutboxEvent
from shared_events.runtime.backoff import row_wait_seconds
from shared_events.runtime.crash_points import CrashPoint, reach

from .delivery import ATTEMPTS_KEPT, Result
from .models import SentEmail
from .outcomes import Kind, Outcome
from .reports import envelope, uncertain_of
from .smtp import Phase

GREYLIST_SECONDS = 300.0
POSTPONE_SECONDS = 30.0
TRANSACTION = frozenset({Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.BODY, Phase.REPLY})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    max_attempts: int
    retry_base_seconds: float
    retry_max_seconds: float
    max_resends: int

    @classmethod
    def from_settings(cls) -> "DeliveryPolicy":
        return cls(
            max_attempts=settings.EMAIL_MAX_ATTEMPTS,
            retry_base_seconds=settings.EMAIL_RETRY_BASE_SECONDS,
            retry_max_seconds=settings.EMAIL_RETRY_MAX_SECONDS,
            max_resends=settings.EMAIL_MAX_RESENDS,
        )

    def wait_seconds(self, n: int) -> float:
        return row_wait_seconds(n, base_seconds=self.retry_base_seconds, maximum_seconds=self.retry_max_seconds)


class Transition(enum.Enum):
    RELEASE = "release"
    POSTPONE = "postpone"
    SEND = "send"
    RETRY = "retry"
    RESEND = "resend"
    FAIL = "fail"
    HOLD = "hold"

    @property
    def is_outcome(self) -> bool:
        """Whether it is one that the notification service is told of."""
        return self not in (Transition.RELEASE, Transition.POSTPONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Where a result takes its row. `wait_seconds` is set for POSTPONE, RETRY and RESEND, `failure` for FAIL."""

    result: Result
    transition: Transition
    wait_seconds: float = 0.0
    failure: Failure | None = None

    @property
    def is_refusal(self) -> bool:
        """Whether the server refused this delivery; expiry and our own defects are none of its doing."""
        return self.result.outcome is not None and self.result.outcome.basic_code is not None


def decide(result: Result, policy: DeliveryPolicy) -> Decision:
    """Rules 5 and 6 of delivery, as a pure function but for the jitter of the wait."""
    delivery, outcome = result.delivery, result.outcome
    if outcome is None or outcome.kind in (Kind.DEPENDENCY, Kind.CONFIGURATION):
        return _decide_unanswered(result)
    if outcome.kind is Kind.SENT:
        return Decision(result=result, transition=Transition.SEND)
    if outcome.kind is Kind.UNCERTAIN:
        return _decide_uncertain(result, policy)
    if outcome.kind is Kind.FAILED:
        if outcome.failure_class == "expired":
            return _decide_expired(result, outcome)
        return Decision(result=result, transition=Transition.FAIL, failure=result.failure())
    if delivery.send_before is not None and result.at >= delivery.send_before:  # no later attempt could be in time
        return _decide_expired(result, outcome)
    if delivery.retry_count + 1 >= policy.max_attempts:
        exhausted = Failure(failure_class="exhausted", code=outcome.code, detail=outcome.reply)
        return Decision(result=result, transition=Transition.FAIL, failure=exhausted)
    return Decision(
        result=result, transition=Transition.RETRY, wait_seconds=_retry_wait_seconds(result, outcome, policy)
    )


def _decide_unanswered(result: Result) -> Decision:
    outcome = result.outcome
    if outcome is None or outcome.kind is Kind.CONFIGURATION or outcome.phase not in TRANSACTION:
        return Decision(result=result, transition=Transition.RELEASE)
    # Perhaps it is this mail that the server cannot take: the others go first, so that it cannot stop them all.
    wait_seconds = row_wait_seconds(1, base_seconds=POSTPONE_SECONDS, maximum_seconds=POSTPONE_SECONDS)
    return Decision(result=result, transition=Transition.POSTPONE, wait_seconds=wait_seconds)


def _decide_expired(result: Result, outcome: Outcome) -> Decision:
    if result.delivery.possible_duplicates:  # an earlier attempt may have arrived: not simply "failed"
        return Decision(result=result, transition=Transition.HOLD)
    expired = Failure(failure_class="expired", code="expired", detail=outcome.reply)
    return Decision(result=result, transition=Transition.FAIL, failure=expired)


def _decide_uncertain(result: Result, policy: DeliveryPolicy) -> Decision:
    delivery = result.delivery
    wait_seconds = policy.wait_seconds(delivery.retry_count + delivery.possible_duplicates + 1)
    too_late = delivery.send_before is not None and result.at + timedelta(seconds=wait_seconds) >= delivery.send_before
    if (
        delivery.on_uncertain == SentEmail.OnUncertain.HOLD
        or delivery.possible_duplicates >= policy.max_resends
        or too_late
    ):
        return Decision(result=result, transition=Transition.HOLD)
    return Decision(result=result, transition=Transition.RESEND, wait_seconds=wait_seconds)


def _retry_wait_seconds(result: Result, outcome: Outcome, policy: DeliveryPolicy) -> float:
    delivery = result.delivery
    wait_seconds = policy.wait_seconds(delivery.retry_count + 1)
    if outcome.hint_seconds is not None:
        wait_seconds = max(wait_seconds, min(outcome.hint_seconds, policy.retry_max_seconds))
    if outcome.greylisted and not any(attempt.enhanced_code == "4.7.1" for attempt in delivery.attempts):
        wait_seconds = max(wait_seconds, GREYLIST_SECONDS)
    if delivery.send_before is not None:  # so that "expired" is said when it is true, and not an hour later
        wait_seconds = min(wait_seconds, max(0.0, (delivery.send_before - result.at).total_seconds()))
    return wait_seconds


class LeaseLostError(Exception):
    """Fewer rows than expected carry the worker's fencing token."""


def settle(results: Sequence[Result], token: int, policy: DeliveryPolicy) -> int:
    """Writes the outcomes in one transaction and returns how many leases were found lost; of those only a 250 is written.

    An UPDATE for each kind of outcome, one INSERT of all status events, three statements more where there are dead letters.
    """
    decisions = [decide(result, policy) for result in results]
    try:
        with transaction.atomic():
            _write(decisions, token)
            reach(CrashPoint.MAIL_SETTLE_UNCOMMITTED)
        reach(CrashPoint.MAIL_SETTLE_COMMITTED)
        return 0
    except LeaseLostError:
        with transaction.atomic():
            return _write_what_is_held(decisions, token)


def _write_what_is_held(decisions: Sequence[Decision], token: int) -> int:
    ids = [decision.result.delivery.id for decision in decisions]
    held = set(SentEmail.objects.held_by(token, ids).select_for_update().order_by("pk").values_list("pk", flat=True))
    lost = [decision for decision in decisions if decision.result.delivery.id not in held]
    _write([decision for decision in decisions if decision.result.delivery.id in held], token)
    for decision in lost:
        log.warning("lease lost", notification_id=str(decision.result.delivery.id), outcome=decision.transition.value)
        if decision.transition is Transition.SEND:
            _write_late_acceptance(decision.result)
    return len(lost)


def _write_late_acceptance(result: Result) -> None:
    """A 250 is a fact: it is written over whatever another owner made of the row.

    Every other attempt that was accepted, may have been, or may just be, counts as a copy. What was announced is not taken back.
    """
    mail = SentEmail.objects.select_for_update().filter(pk=result.delivery.id).first()
    if mail is None:
        return
    attempts = _with_acceptance(msgspec.convert(mail.attempts, list[Attempt]), result.attempt())
    perhaps_sent = sum(attempt.outcome in (Kind.SENT, Kind.UNCERTAIN) for attempt in attempts)
    if mail.status in SentEmail.OPEN and mail.data_started_at is not None:
        # Another owner's mark: that one loses its lease now, so what it is answered may never be written.
        perhaps_sent += 1
    possible_duplicates = max(mail.possible_duplicates, perhaps_sent - 1)
    sent_at = min(mail.sent_at or result.at, result.at)
    SentEmail.objects.filter(pk=mail.pk).update(
        status=SentEmail.Status.SENT,
        status_version=F("status_version") + 1,
        due_at=None,
        lease_token=0,
        crashes=0,
        data_started_at=None,
        sent_at=sent_at,
        settled_at=Now(),
        attempts=msgspec.to_builtins(attempts),
        possible_duplicates=possible_duplicates,
    )
    report = EmailSent(
        **envelope(mail.pk, mail.status_version + 1),
        generation=mail.generation,
        attempts=attempts,
        possible_duplicates=possible_duplicates,
        sent_at=sent_at,
    )
    OutboxEvent.objects.bulk_create([OutboxEvent.of(report, topics.NOTIFICATION_STATUS)])


def _with_acceptance(known: list[Attempt], accepted: Attempt) -> list[Attempt]:
    """The attempt takes the place of what another owner, who found it unanswered, wrote of it; otherwise it is the last."""
    for index, attempt in enumerate(known):
        if attempt.n == accepted.n and attempt.outcome == Kind.UNCERTAIN:
            return [*known[:index], accepted, *known[index + 1 :]]
    last = msgspec.structs.replace(accepted, n=known[-1].n + 1 if known else 1)
    return [*known, last][-ATTEMPTS_KEPT:]


def _write(decisions: Sequence[Decision], token: int) -> None:
    """Raises LeaseLostError, which rolls the caller's transaction back, where a row is not held any more."""
    by_transition: dict[Transition, list[Decision]] = {}
    for decision in decisions:
        by_transition.setdefault(decision.transition, []).append(decision)
    for transition, group in by_transition.items():
        rows = SentEmail.objects.held_by(token, [decision.result.delivery.id for decision in group])
        changed = rows.release() if transition is Transition.RELEASE else rows.update(**_changes(transition, group))
        if changed != len(group):
            raise LeaseLostError
    reports = [_report(decision) for decision in decisions if decision.transition.is_outcome]
    if reports:
        OutboxEvent.objects.bulk_create([OutboxEvent.of(report, topics.NOTIFICATION_STATUS) for report in reports])
    record_dead_letters(
        [_dead_letter(decision) for decision in by_transition.get(Transition.FAIL, ())],
        topic=topics.EMAIL_DEAD_LETTERS,
        producer=settings.PRODUCER,
    )


def _changes(transition: Transition, group: Sequence[Decision]) -> dict[str, Any]:
    if transition is Transition.POSTPONE:
        due_at = _each("due_at", ((d, in_seconds(d.wait_seconds)) for d in group))
        return {"due_at": due_at, "lease_token": 0, "crashes": 0, "data_started_at": None}
    common: dict[str, Any] = {
        "status_version": F("status_version") + 1,
        "lease_token": 0,
        "crashes": 0,
        "data_started_at": None,
        "settled_at": Now(),
        "attempts": _each("attempts", ((d, msgspec.to_builtins(d.result.attempts())) for d in group)),
    }
    if transition is Transition.SEND:
        return {
            **common,
            "status": SentEmail.Status.SENT,
            "due_at": None,
            "sent_at": _each("sent_at", ((d, d.result.at) for d in group)),
        }
    if transition is Transition.RETRY:
        due_at = _each("due_at", ((d, in_seconds(d.wait_seconds)) for d in group))
        return {
            **common,
            "status": SentEmail.Status.RETRY_PENDING,
            "retry_count": F("retry_count") + 1,
            "due_at": due_at,
        }
    if transition is Transition.RESEND:
        due_at = _each("due_at", ((d, in_seconds(d.wait_seconds)) for d in group))
        return {
            **common, "status": SentEmail.Status.RETRY_PENDING, "possible_duplicates": F("possible_duplicates") + 1, "due_at": due_at,
        }  # fmt: skip
    if transition is Transition.HOLD:
        return {
            **common,
            "status": SentEmail.Status.UNCERTAIN,
            "due_at": None,
            "uncertain_phase": _each(
                "uncertain_phase", ((d, str(d.result.outcome.phase)) for d in group if d.result.outcome)
            ),
            "uncertain_since": _each("uncertain_since", ((d, d.result.at) for d in group)),
            "uncertain_host": _each("uncertain_host", ((d, d.result.host) for d in group)),
        }
    return {
        **common,
        "status": SentEmail.Status.FAILED,
        "due_at": None,
        "retry_count": _each("retry_count", ((d, d.result.delivery.retry_count + d.is_refusal) for d in group)),
        "failure_class": _each("failure_class", ((d, d.failure.failure_class) for d in group if d.failure)),
        "failure_code": _each("failure_code", ((d, d.failure.code[:32]) for d in group if d.failure)),
        "failure_detail": _each("failure_detail", ((d, d.failure.detail[:500]) for d in group if d.failure)),
    }


def _each(name: str, values: Iterable[tuple[Decision, Any]]) -> Any:
    return per_row(SentEmail._meta.get_field(name), {decision.result.delivery.id: value for decision, value in values})  # type: ignore[arg-type]  # noqa: SLF001


def _report(decision: Decision) -> AnyStatus:
    result, delivery = decision.result, decision.result.delivery
    common: dict[str, Any] = {
        **envelope(delivery.id, delivery.status_version + 1),
        "attempts": result.attempts(),
        "generation": delivery.generation,
        "possible_duplicates": delivery.possible_duplicates + (decision.transition is Transition.RESEND),
    }
    if decision.transition is Transition.SEND:
        return EmailSent(**common, sent_at=result.at)
    if decision.transition is Transition.FAIL and decision.failure is not None:
        return EmailFailed(**common, failure=decision.failure)
    if decision.transition is Transition.HOLD and result.outcome is not None:
        return EmailUncertain(
            **common, uncertain=uncertain_of(result.outcome.phase, result.at, result.host, delivery.message_id)
        )
    return EmailDeferred(**common, next_attempt_at=result.at + timedelta(seconds=decision.wait_seconds))


def _dead_letter(decision: Decision) -> DeadLetter:
    delivery, failure = decision.result.delivery, decision.failure
    assert failure is not None  # noqa: S101 (only a FAIL makes one)
    return DeadLetter.of_notification(
        delivery.id,
        delivery.generation,
        letter_class=failure.failure_class,
        cause=failure.detail if failure.detail.startswith(failure.code) else f"{failure.code} {failure.detail}".strip(),
        original=delivery.original(),
    )
