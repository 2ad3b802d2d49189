"""A relay that ends in the midst of its work: what the next one finds, and what the broker sees."""

from typing import Any
from unittest.mock import patch

import pytest
from django.db.models import F

from shared_events.contracts.events import id_at
from shared_events.kafka.producer import ACKNOWLEDGED, UNANSWERED, Report
from shared_events.outbox.claim import POISON_CRASHES, claim_due
from shared_events.outbox.models import OutboxEvent

from .factories import TOO_LARGE, Relaying, ScriptedProducer, ago, only, sent_event, store

pytestmark = pytest.mark.django_db
Status = OutboxEvent.Status


class Killed(BaseException):
    """The process ends here: nothing of it runs any more."""


def leases_run_out() -> None:
    OutboxEvent.objects.filter(status__in=OutboxEvent.PUBLISHABLE).update(due_at=ago(1))


def killed_after_publishing(producer: ScriptedProducer) -> None:
    relay = Relaying(producer).relay
    with patch.object(relay, "_settle", side_effect=Killed), pytest.raises(Killed):
        relay.run_once()


@pytest.mark.fault(13)
def test_what_a_relay_had_claimed_and_not_published_is_published_by_the_next() -> None:
    store(3)
    claim_due(OutboxEvent, ("id",), batch=3, lease_seconds=60, token=7, claims=F("claims") + 1)
    producer = ScriptedProducer()
    other = Relaying(producer).relay
    assert other.run_once() == 0  # the lease is the dead one's still
    leases_run_out()
    assert other.run_once() == 3
    assert set(OutboxEvent.objects.values_list("status", "retry_count", "crashes")) == {(Status.PUBLISHED, 0, 0)}
    assert len(producer.published) == 3


@pytest.mark.fault(13)
def test_an_event_that_ends_every_relay_is_given_up_and_its_neighbours_are_published() -> None:
    bad, good = store(2)

    class Dies(ScriptedProducer):
        def publish(self, records: Any, *, give_up: Any) -> list[Report]:
            if any(str(bad).encode() in record.value for record in records):
                raise Killed
            return super().publish(records, give_up=give_up)

    relaying = Relaying(Dies())
    for _restart in range(POISON_CRASHES + 2):
        leases_run_out()
        try:
            while relaying.relay.run_once():
                pass
        except Killed:
            continue
    states = dict(OutboxEvent.objects.values_list("pk", "status"))
    assert states == {bad: Status.DEAD_LETTERED, good: Status.PUBLISHED}
    assert [event_id for event_id, _reason in relaying.given_up] == [bad]


@pytest.mark.fault(14)
@pytest.mark.parametrize("reached_broker", [True, False])
def test_what_was_handed_over_without_an_answer_is_published_again_as_the_same_event(*, reached_broker: bool) -> None:
    event_id = store()[0]
    arrived = []

    class Silent(ScriptedProducer):
        def publish(self, records: Any, *, give_up: Any) -> list[Report]:
            if reached_broker:
                arrived.extend(records)
            return [UNANSWERED] * len(records)

    Relaying(Silent()).relay.run_once()
    assert (only().status, only().retry_count) == (Status.PENDING, 0)
    after = ScriptedProducer()
    assert Relaying(after).relay.run_once() == 1
    (again,) = after.published
    assert str(event_id).encode() in again.value
    assert arrived in ([], [again])  # key, bytes and headers: the consumer cannot tell them apart, and knows the id
    assert only().status == Status.PUBLISHED


@pytest.mark.fault(15)
def test_what_was_acknowledged_and_not_settled_is_published_again_as_the_same_event() -> None:
    store(2)
    producer = ScriptedProducer(lambda _record: ACKNOWLEDGED)
    killed_after_publishing(producer)
    leases_run_out()
    assert Relaying(producer).relay.run_once() == 2
    assert producer.published[:2] == producer.published[2:]
    assert set(OutboxEvent.objects.values_list("status", "publication", "crashes")) == {(Status.PUBLISHED, 1, 0)}


@pytest.mark.fault(20)
@pytest.mark.parametrize("mine", [ACKNOWLEDGED, UNANSWERED], ids=["acknowledged", "unanswered"])
@pytest.mark.parametrize(
    ("others", "left"),
    [(ACKNOWLEDGED, (Status.PUBLISHED, 0, False)), (TOO_LARGE, (Status.FAILED, 1, True))],
    ids=["it was published", "it was refused"],
)
def test_a_relay_that_wakes_up_after_its_lease_leaves_what_the_other_made_of_it(
    mine: Report, others: Report, left: tuple[str, int, bool]
) -> None:
    store()
    other = Relaying(ScriptedProducer(lambda _record: others))

    class Sleeps(ScriptedProducer):
        def publish(self, records: Any, *, give_up: Any) -> list[Report]:
            leases_run_out()
            assert other.relay.run_once() == 1
            return [mine] * len(records)

    Relaying(Sleeps()).relay.run_once()
    event = only()
    assert (event.status, event.retry_count, event.due_at is not None) == left
    assert (event.lease_token, event.claims) == (0, 2)


@pytest.mark.fault(22)
def test_an_event_that_was_committed_late_with_an_older_id_is_published() -> None:
    late = OutboxEvent.of(sent_event(), "notification-status-topic", due_at=ago(60))
    late.id = id_at(ago(60))  # made first, in a transaction that took a minute
    newer = store(3, due_at=ago(30), available_at=ago(30))
    producer = ScriptedProducer()
    relay = Relaying(producer).relay
    assert relay.run_once() == 3
    OutboxEvent.objects.bulk_create([late])
    assert late.pk < min(newer)
    assert relay.run_once() == 1
    assert set(OutboxEvent.objects.values_list("status", flat=True)) == {Status.PUBLISHED}


@pytest.mark.fault(25)
def test_a_stop_amid_a_batch_settles_what_was_acknowledged_and_frees_the_rest_at_once() -> None:
    ids = store(4)
    relaying = Relaying(ScriptedProducer())

    class Stopped(ScriptedProducer):
        def publish(self, records: Any, *, give_up: Any) -> list[Report]:
            relaying.gives_up = True
            assert give_up()
            return [ACKNOWLEDGED] * 2 + [UNANSWERED] * (len(records) - 2)

    relaying.relay._producer = Stopped()  # type: ignore[assignment]
    relaying.relay.run_once()
    assert set(OutboxEvent.objects.filter(status=Status.PUBLISHED).values_list("pk", flat=True)) == set(ids[:2])
    free = OutboxEvent.objects.filter(status=Status.PENDING)
    assert set(free.values_list("lease_token", "crashes", "retry_count")) == {(0, 0, 0)}
    claimed = claim_due(OutboxEvent, ("id",), batch=9, lease_seconds=60, token=9)
    assert [row[0] for row in claimed] == ids[2:]
