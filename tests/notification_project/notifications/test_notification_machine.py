"""Whatever Kafka loses, repeats or turns round: a notification is as the best report that arrived, and asking again heals the rest."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db.models import F
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, invariant, multiple, precondition, rule
from rest_framework.exceptions import APIException

from notification_project.notifications import status
from notification_project.notifications.cancellation import CREATED, cancel
from notification_project.notifications.invariants import INVARIANTS
from notification_project.notifications.models import Notification
from notification_project.notifications.reconciler import Reconciler
from notification_project.notifications.resolution import request_resolution
from shared_events.contracts.events import (
    AnyStatus,
    EmailDeferred,
    EmailFailed,
    EmailNotificationCreated,
    EmailReplayed,
    EmailResolutionRequested,
    EmailSent,
    EmailUncertain,
    Failure,
    Uncertain,
    decode,
    encode,
    new_id,
    now,
)
from shared_events.contracts.topics import NOTIFICATION_EVENTS
from shared_events.outbox.claim import claim_due, new_lease_token
from shared_events.outbox.models import OutboxEvent
from shared_events.outbox.wakeup import WakeUp
from tests.database_machine import DatabaseMachine, run_machine
from tests.notification_project.factories import NotificationFactory, ago, ahead, created_event, record

AFTER_SECONDS = 900
ROUNDS = 2
NOTIFICATIONS = 3
"""So few that most steps meet the same ones."""
STATUS_OF: dict[type[Any], str] = {
    EmailSent: "SENT",
    EmailFailed: "FAILED",
    EmailDeferred: "PENDING",
    EmailReplayed: "PENDING",
    EmailUncertain: "UNCERTAIN",
}
FIELDS: dict[type[Any], dict[str, Any]] = {
    EmailSent: {"sent_at": ago(seconds=5)},
    EmailFailed: {"failure": Failure(failure_class="recipient", code="5.1.1", detail="no such user")},
    EmailDeferred: {"next_attempt_at": ahead(minutes=5)},
    EmailReplayed: {},
    EmailUncertain: {
        "uncertain": Uncertain(phase="reply", since=ago(minutes=1), host="mx", message_id="<a@b>", next="held")
    },
}
RESOLVED_BY: dict[str, type[Any]] = {"delivered": EmailSent, "not_delivered": EmailFailed, "resend": EmailReplayed}


@dataclass
class Mail:
    """The e-mail service's side of a notification."""

    id: UUID
    kind: type[Any] = EmailDeferred
    version: int = 0
    generation: int = 0

    def report(self) -> AnyStatus:
        made: AnyStatus = self.kind(
            event_id=new_id(), notification_id=self.id, occurred_at=now(), producer="email-service",
            status_version=self.version, generation=self.generation, **FIELDS[self.kind],
        )  # fmt: skip
        return made

    def become(self, kind: type[Any], *, generation: int = 0) -> AnyStatus:
        self.kind, self.version, self.generation = kind, self.version + 1, self.generation + generation
        return self.report()

    def resolve(self, request: EmailResolutionRequested) -> AnyStatus:
        if self.kind is EmailUncertain and self.generation == request.generation:
            return self.become(RESOLVED_BY[request.resolution], generation=1)
        return self.report()


@dataclass
class Arrived:
    """What a notification must show: SENT if ever reported, else the report of the highest version."""

    status: str = "PENDING"
    version: int = 0

    def note(self, report: AnyStatus) -> None:
        if isinstance(report, EmailSent):
            self.status, self.version = "SENT", max(self.version, report.status_version)
        elif self.status != "SENT" and report.status_version > self.version:
            self.status, self.version = STATUS_OF[type(report)], report.status_version


class Notifications(DatabaseMachine):
    notifications = Bundle("notifications")

    def __init__(self) -> None:
        super().__init__()
        self.mails: dict[UUID, Mail] = {}
        self.reports: list[AnyStatus] = []
        self.arrived: dict[UUID, Arrived] = {}
        self.cancelled: set[UUID] = set()
        self.offset = 0
        wake_up = WakeUp(settings.REDIS_URL, settings.PRODUCER)
        self.reconciler = Reconciler(after_seconds=AFTER_SECONDS, wake_up=wake_up)

    @precondition(lambda self: len(self.arrived) < NOTIFICATIONS)
    @rule(target=notifications, count=st.integers(1, 3))
    def accept(self, count: int) -> Any:
        rows = NotificationFactory.create_batch(count)
        events = [OutboxEvent.of(created_event(row), NOTIFICATION_EVENTS) for row in rows]
        OutboxEvent.objects.bulk_create(events)
        self.arrived |= {row.pk: Arrived() for row in rows}
        return multiple(*(row.pk for row in rows))

    @rule(is_lost=st.booleans())
    def publish(self, is_lost: bool) -> None:
        """The relay; where the record is lost, the broker has acknowledged it all the same."""
        fields, token = ("pk", "payload", "publication"), new_lease_token()
        rows = claim_due(OutboxEvent, fields, batch=500, lease_seconds=60, token=token, claims=F("claims") + 1)
        assert OutboxEvent.objects.held_by(token, [row[0] for row in rows]).mark_published() == len(rows)
        for _key, payload, publication in rows:
            if not is_lost:
                self._take_in(decode(bytes(payload)), publication)

    def _take_in(self, event: EmailNotificationCreated | EmailResolutionRequested, publication: int) -> None:
        key = event.notification_id
        if isinstance(event, EmailResolutionRequested):
            self.reports.append(self.mails[key].resolve(event))
        elif key not in self.mails:
            self.mails[key] = Mail(key)
        elif publication > 1:
            self.reports.append(self.mails[key].report())

    @rule(key=notifications, kind=st.sampled_from(sorted(STATUS_OF, key=str)), is_lost=st.booleans())
    def attempt(self, key: UUID, kind: type[Any], is_lost: bool) -> None:
        """An outcome, or a replay; no replay is lost: to a final notification nothing else says that it is open again."""
        mail = self.mails.get(key)
        if mail is None:
            return
        is_open = mail.kind in (EmailDeferred, EmailReplayed)
        if kind is EmailReplayed and mail.kind is EmailFailed:
            self.reports.append(mail.become(kind, generation=1))
        elif kind is not EmailReplayed and is_open:
            report = mail.become(kind)
            self.reports += [] if is_lost else [report]

    @rule(key=notifications, kind=st.sampled_from([EmailFailed, EmailDeferred, EmailUncertain]))
    def a_stray_report_arrives(self, key: UUID, kind: type[Any]) -> None:
        """Of a later version than what was sent, as after a restored backup: sent it is all the same."""
        best = self.arrived[key]
        if best.status == "SENT":
            mail = self.mails[key]
            self._deliver([Mail(key, kind, mail.version + 1, mail.generation).report()])

    @rule(data=st.data())
    def reports_arrive(self, data: st.DataObject) -> None:
        """Some of them, in any order, some twice."""
        if not self.reports:
            return
        chosen = data.draw(st.lists(st.integers(0, len(self.reports) - 1), min_size=1, max_size=6))
        self._deliver([self.reports[index] for index in chosen])
        self.reports = [report for index, report in enumerate(self.reports) if index not in chosen or index % 3 == 0]

    def _deliver(self, reports: list[AnyStatus]) -> None:
        records = []
        for report in reports:
            self.offset += 1
            records.append(record(encode(report), offset=self.offset))
            self.arrived[report.notification_id].note(report)
        status.handle(records)

    @rule(key=notifications, was_released=st.booleans())
    def cancel(self, key: UUID, was_released: bool) -> None:
        """What a relay claimed once cannot be cancelled any more, whatever became of the claim."""
        if was_released:
            OutboxEvent.objects.filter(aggregate_id=key, status="PENDING").update(claims=F("claims") + 1)
        event = OutboxEvent.objects.get(aggregate_id=key, event_type=CREATED)
        can = key in self.cancelled or (event.status == "PENDING" and event.claims == 0)
        try:
            cancel(Notification.objects.get(pk=key))
            assert can
            self.cancelled.add(key)
        except APIException:
            assert not can

    @rule(key=notifications, resolution=st.sampled_from(sorted(RESOLVED_BY)), twice=st.booleans())
    def resolve(self, key: UUID, resolution: str, twice: bool) -> None:
        notification = Notification.objects.get(pk=key)
        for _ in range(1 + twice):
            try:
                request_resolution(notification, resolution, reason="asked", operator="ada")
                assert notification.status == "UNCERTAIN"
            except APIException:
                assert notification.status != "UNCERTAIN"

    @rule()
    def reconcile(self) -> None:
        """After a day without a word of those that are open."""
        Notification.objects.filter(reconcile_at__isnull=False).update(reconcile_at=ago(days=1))
        self.reconciler.run_once()

    @rule()
    def everything_asked_for_arrives(self) -> None:
        """From here nothing is lost: after some days both services say the same."""
        for _ in range(ROUNDS):
            self.reconcile()
            self.publish(is_lost=False)
            self._deliver(self.reports)
            self.reports = []
        for key, seen in Notification.objects.in_bulk().items():
            if key in self.cancelled:
                assert (seen.status, key in self.mails) == ("CANCELLED", False)
                continue
            mail = self.mails[key]
            assert (seen.status, seen.status_version) == (STATUS_OF[mail.kind], mail.version)

    @invariant()
    def each_is_as_the_best_report_that_arrived(self) -> None:
        rows = Notification.objects.values_list("pk", "status", "status_version")
        found = {key: (shown, version) for key, shown, version in rows}
        assert found == {
            key: ("CANCELLED", 0) if key in self.cancelled else (best.status, best.version)
            for key, best in self.arrived.items()
        }

    @invariant()
    def what_must_always_hold_holds(self) -> None:
        """Open ones will be asked after, final ones are not, cancelled ones have never left."""
        assert [kind.sentence for kind in INVARIANTS if kind.broken().exists()] == []


@pytest.mark.fault(21, 33, 51, 53)
@pytest.mark.django_db
def test_a_notification_is_as_the_best_report_and_asking_again_heals_the_rest() -> None:
    run_machine(Notifications, max_examples=20)
