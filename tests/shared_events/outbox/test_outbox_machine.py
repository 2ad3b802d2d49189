"""Whatever two relays, an operator, a reconciler and a clock do to the outbox, in whatever order: its rows are as a model says."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db.models.functions import Now
from django.utils.module_loading import import_string
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, invariant, multiple, precondition, rule

from shared_events.contracts.events import id_at
from shared_events.contracts.topics import NOTIFICATION_STATUS
from shared_events.dead_letters.invariants import OUTBOX
from shared_events.dead_letters.retention import prune
from shared_events.kafka.producer import ACKNOWLEDGED, UNANSWERED, Report
from shared_events.outbox.claim import POISON_CRASHES, new_lease_token
from shared_events.outbox.models import OutboxEvent
from shared_events.outbox.relay import SUSPECT_CRASHES, ClaimedEvent
from tests.database_machine import DatabaseMachine, run_machine

from .factories import TOO_LARGE, UNKNOWN_TOPIC, Relaying, ScriptedProducer, ago, sent_event

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
MAX_ATTEMPTS = 3
BATCH = 4
EVENTS = 4
"""So few that most steps meet the same ones."""
ANSWERS = (ACKNOWLEDGED, ACKNOWLEDGED, UNANSWERED, TOO_LARGE, UNKNOWN_TOPIC)
DONE = frozenset({"PUBLISHED", "CANCELLED"})


@dataclass
class Row:
    """What must stand in the table; `token` is the last claim's, 0 where nobody may settle."""

    status: str = "PENDING"
    due: bool = True
    token: int = 0
    claims: int = 0
    crashes: int = 0
    retry_count: int = 0
    publication: int = 1
    acknowledged: int = 0
    is_old: bool = False

    @property
    def is_open(self) -> bool:
        return self.status in ("PENDING", "FAILED")

    def settle(self, status: str, *, due: bool = False) -> None:
        self.status, self.due, self.token, self.crashes = status, due, 0, 0


@dataclass
class Hand:
    """A claim that is neither settled nor forgotten."""

    token: int
    events: list[ClaimedEvent] = field(default_factory=list)


class Outbox(DatabaseMachine):
    events = Bundle("events")
    relays = st.sampled_from("AB")

    def __init__(self) -> None:
        super().__init__()
        self.made = 0
        self.rows: dict[UUID, Row] = {}
        self.hands: dict[str, Hand] = {}
        self.relaying = Relaying(
            ScriptedProducer(), batch=BATCH, max_attempts=MAX_ATTEMPTS, retry_base_seconds=3600, retry_max_seconds=7200
        )
        self.relay = self.relaying.relay

    @precondition(lambda self: len(self.rows) < EVENTS)
    @rule(target=events, count=st.integers(1, 4), scheduled=st.booleans(), is_old=st.booleans())
    def add(self, count: int, scheduled: bool, is_old: bool) -> Any:
        ids = []
        for _ in range(count):
            row = OutboxEvent.of(sent_event(), NOTIFICATION_STATUS, due_at=ago(-86_400 if scheduled else 60))
            if is_old:
                self.made += 1
                row.pk = UUID(int=id_at(LONG_AGO).int + self.made)
            row.save(force_insert=True)
            self.rows[row.pk] = Row(due=not scheduled, is_old=is_old)
            ids.append(row.pk)
        return multiple(*ids)

    @rule(relay=relays, is_late=st.booleans())
    def claim(self, relay: str, is_late: bool) -> None:
        """A relay that still had something in hand has died over it; late, it takes what the other one holds, too."""
        if is_late:
            self._let_time_pass(list(self.rows))
        hand = self.hands[relay] = Hand(new_lease_token())
        due = {key for key, row in self.rows.items() if row.due}
        claimed = self.relay._claim(hand.token)
        assert {event.id for event in claimed} <= due
        assert len(claimed) == min(BATCH, len(due))
        for event in claimed:
            row = self.rows[event.id]
            assert (event.crashes, event.retry_count, event.publication) == (
                row.crashes,
                row.retry_count,
                row.publication,
            )
            row.due, row.token, row.claims, row.crashes = False, hand.token, row.claims + 1, row.crashes + 1
        hand.events = self.relay._without_suspects(hand.token, claimed)
        self._put_back(claimed, hand.events)

    def _put_back(self, claimed: Collection[ClaimedEvent], kept: Collection[ClaimedEvent]) -> None:
        suspects = [event for event in claimed if event.crashes >= SUSPECT_CRASHES]
        assert list(kept) == (suspects[:1] or list(claimed))
        for event in claimed:
            if event not in kept:
                row = self.rows[event.id]
                row.due, row.token, row.crashes = True, 0, row.crashes - 1

    @precondition(lambda self: self.hands)
    @rule(relay=relays, answers=st.lists(st.sampled_from(ANSWERS), min_size=BATCH, max_size=BATCH))
    def settle(self, relay: str, answers: list[Report]) -> None:
        """On time, or long after the lease ended: only what the token still holds changes."""
        hand = self.hands.pop(relay, Hand(0))
        healthy = [event for event in hand.events if event.crashes < POISON_CRASHES]
        reports = {event.id: answer for event, answer in zip(healthy, answers, strict=False)}
        self.relaying.given_up.clear()
        self.relay._settle(hand.token, hand.events, reports)
        given_up = [event.id for event in hand.events if self._settle_row(hand.token, event, reports.get(event.id))]
        assert [key for key, _reason in self.relaying.given_up] == given_up

    def _settle_row(self, token: int, event: ClaimedEvent, report: Report | None) -> bool:
        """Whether the event is given up."""
        row = self.rows.get(event.id)
        if row is None or row.token != token or not row.is_open:
            return False
        if report is ACKNOWLEDGED:
            row.settle("PUBLISHED")
            row.acknowledged += 1
        elif report is UNANSWERED or report is UNKNOWN_TOPIC:
            row.settle(row.status, due=True)
        else:
            row.retry_count += 1
            exhausted = report is None or row.retry_count >= MAX_ATTEMPTS
            row.settle("DEAD_LETTERED" if exhausted else "FAILED")
            return exhausted
        return False

    @rule(key=events)
    def time_passes(self, key: UUID) -> None:
        """The end of its lease, of its wait, or of what it was scheduled for."""
        self._let_time_pass([key])

    def _let_time_pass(self, keys: list[UUID]) -> None:
        OutboxEvent.objects.filter(pk__in=keys, due_at__isnull=False).update(due_at=ago(60), available_at=ago(60))
        for key in keys:
            if key in self.rows and self.rows[key].is_open:
                self.rows[key].due = True

    @rule(key=events, action=st.sampled_from(["publish_again", "replay", "cancel", "wear_out"]))
    def change(self, key: UUID, action: str) -> None:
        """The reconciler, an operator, a client; or a row that ended its relays again and again."""
        act: Callable[[Any, Row], None] = getattr(self, f"_{action}")
        act(OutboxEvent.objects.filter(pk=key), self.rows.get(key) or Row("PRUNED"))

    def _publish_again(self, found: Any, row: Row) -> None:
        assert found.publish_again() == (row.status == "PUBLISHED")
        if row.status == "PUBLISHED":
            row.settle("PENDING", due=True)
            row.publication += 1

    def _replay(self, found: Any, row: Row) -> None:
        assert found.publish_given_up() == (row.status == "DEAD_LETTERED")
        if row.status == "DEAD_LETTERED":
            row.settle("PENDING", due=True)
            row.retry_count = 0

    def _cancel(self, found: Any, row: Row) -> None:
        can = row.status == "PENDING" and row.claims == 0
        assert found.cancel_unclaimed() == can
        if can:
            row.settle("CANCELLED")

    def _wear_out(self, found: Any, row: Row) -> None:
        if row.is_open and row.claims:
            row.crashes = POISON_CRASHES
            found.update(crashes=POISON_CRASHES)

    @precondition(lambda self: self.rows)
    @rule()
    def prune(self) -> None:
        for prune_rule in import_string(settings.PRUNE_RULES):
            if prune_rule.name == "outbox_events":
                deleted = sum(prune(prune_rule))
        gone = [key for key, row in self.rows.items() if row.is_old and row.status in DONE]
        assert deleted == len(gone)
        for key in gone:
            del self.rows[key]

    @invariant()
    def the_table_is_as_the_model(self) -> None:
        columns = ("pk", "status", "lease_token", "claims", "crashes", "retry_count", "publication")
        found = {values[0]: values[1:] for values in OutboxEvent.objects.values_list(*columns)}
        assert found == {
            key: (row.status, row.token, row.claims, row.crashes, row.retry_count, row.publication)
            for key, row in self.rows.items()
        }
        due = set(OutboxEvent.objects.filter(due_at__lte=Now()).values_list("pk", flat=True))
        assert due == {key for key, row in self.rows.items() if row.due}

    @invariant()
    def what_must_always_hold_holds(self) -> None:
        """Open ones are due or leased, done ones are neither."""
        assert [kind.sentence for kind in OUTBOX if kind.broken().exists()] == []

    @invariant()
    def a_cancelled_one_was_never_claimed_and_never_published(self) -> None:
        cancelled = OutboxEvent.objects.filter(status="CANCELLED")
        assert not cancelled.exclude(claims=0, published_at=None).exists()

    @invariant()
    def a_row_is_published_by_its_holder_alone(self) -> None:
        published = set(OutboxEvent.objects.filter(published_at__isnull=False).values_list("pk", flat=True))
        assert published == {key for key, row in self.rows.items() if row.acknowledged}


@pytest.mark.fault(13, 14, 15, 20)
@pytest.mark.django_db
def test_the_outbox_is_as_its_model_says_whatever_happens_to_it() -> None:
    run_machine(Outbox)
