"""Whatever workers, a server, Kafka, operators and a clock do to mails, in whatever order: no copy is uncounted, no outcome unsaid."""

import enum
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.db.models import Q
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, invariant, multiple, precondition, rule

from email_project.emails.delivery import Delivery, Result
from email_project.emails.intake import Intake, NoPool, Pool
from email_project.emails.invariants import INVARIANTS
from email_project.emails.message import RenderedMail
from email_project.emails.models import SentEmail
from email_project.emails.replay import MailReplayer
from email_project.emails.settlement import DeliveryPolicy
from email_project.emails.smtp import Phase, Reply, SmtpFault
from shared_events.contracts.events import EmailNotificationCreated, EmailResolutionRequested, encode, new_id, now
from shared_events.dead_letters.models import DeadLetter
from shared_events.dead_letters.replay import Order, replay
from tests.database_machine import DatabaseMachine, run_machine
from tests.email_project.factories import ago, ahead, created, record, reports
from tests.email_project.senders import Sending

POLICY = DeliveryPolicy(max_attempts=3, retry_base_seconds=3600, retry_max_seconds=7200, max_resends=2)
MAILS = 3
"""So few that most steps meet the same ones."""
STATUS_OF = {
    "EmailSent": "SENT",
    "EmailFailed": "FAILED",
    "EmailUncertain": "UNCERTAIN",
    "EmailDeferred": "open",
    "EmailReplayed": "open",
}


class Answer(enum.Enum):
    """What becomes of a mail at the server, and whether its answer reaches us."""

    ACCEPTED = enum.auto()
    ACCEPTED_UNHEARD = enum.auto()
    LOST_IN_DATA = enum.auto()
    REFUSED_FOR_NOW = enum.auto()
    REFUSED = enum.auto()
    REFUSED_AT_THE_DOT = enum.auto()
    CLOSING = enum.auto()
    AWAY = enum.auto()
    NO_LOGIN = enum.auto()


FAULTS: dict[Answer, tuple[Phase, Any, Reply | None]] = {
    Answer.ACCEPTED_UNHEARD: (Phase.REPLY, "timeout", None),
    Answer.LOST_IN_DATA: (Phase.BODY, "reset", None),
    Answer.REFUSED_FOR_NOW: (Phase.RCPT, "reply", Reply(451, "4.3.0 Try again later")),
    Answer.REFUSED: (Phase.RCPT, "reply", Reply(550, "5.1.1 No such user")),
    Answer.REFUSED_AT_THE_DOT: (Phase.REPLY, "reply", Reply(554, "5.7.1 Spam")),
    Answer.CLOSING: (Phase.RCPT, "reply", Reply(421, "4.3.2 Closing")),
    Answer.AWAY: (Phase.CONNECT, "refused", None),
    Answer.NO_LOGIN: (Phase.AUTH, "reply", Reply(535, "5.7.8 Authentication failed")),
}
LIKELY = (Answer.ACCEPTED, Answer.ACCEPTED, Answer.ACCEPTED_UNHEARD, Answer.REFUSED_FOR_NOW, Answer.REFUSED)
ANSWERS = st.sampled_from([*LIKELY, *Answer])
BEFORE_DATA = frozenset({Phase.CONNECT, Phase.AUTH, Phase.RCPT})


class Server:
    """The edge of the process: a connection that answers as told, and what the recipients really have."""

    is_open = True

    def __init__(self) -> None:
        self.copies: Counter[UUID] = Counter()
        self.answer = Answer.ACCEPTED
        self.mail_id: UUID | None = None

    def send(self, _mail: RenderedMail, *, before_data: Callable[[], None]) -> Reply:
        fault = FAULTS.get(self.answer)
        if fault is None or fault[0] not in BEFORE_DATA:
            before_data()
        if self.answer in (Answer.ACCEPTED, Answer.ACCEPTED_UNHEARD):
            assert self.mail_id is not None
            self.copies[self.mail_id] += 1
        if fault is not None:
            raise SmtpFault(phase=fault[0], cause=fault[1], reply=fault[2])
        return Reply(250, "2.0.0 Ok: queued")


class Worker:
    """A sender without threads: the machine says when it claims, speaks and writes; `unread` is what it was answered and has not seen."""

    def __init__(self) -> None:
        self.sender = Sending(connections=0, grace_seconds=0, policy=POLICY).sender
        self.unread: list[Result] = []

    def claim(self) -> None:
        self.sender._breaker.success()
        self.sender.claim_soon()
        self.sender._claim()

    def deliver(self, server: Server, answer: Answer) -> None:
        if self.sender._ready.empty():
            return
        delivery = self.sender._ready.get_nowait()
        assert isinstance(delivery, Delivery)
        server.answer, server.mail_id = answer, delivery.id
        outcome = self.sender._deliver(server, delivery)  # type: ignore[arg-type]
        self.unread.append(Result(delivery=delivery, outcome=outcome, host="relay.test"))

    def read(self) -> None:
        for result in self.unread:
            self.sender._note(result)
        self.unread = []

    def settle(self) -> None:
        self.read()
        self.sender._settle()

    def renew(self) -> None:
        self.sender._renewed_at = -1e9
        self.sender._renew()

    def pass_deadline(self, key: UUID) -> None:
        delivery = self.sender._held.get(key)
        if delivery is not None and delivery.send_before is not None:
            delivery.send_before = ago(seconds=1)

    def forget_leases(self, keys: set[UUID]) -> None:
        for key, delivery in self.sender._held.items():
            if key in keys:
                delivery.leased_until = 0.0


class Mails(DatabaseMachine):
    mails = Bundle("mails")
    workers = st.sampled_from("AB")
    pools = st.sampled_from(["A", "B", ""])

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.worker = {name: Worker() for name in "AB"}
        self.events: dict[UUID, EmailNotificationCreated] = {}
        self.resends: Counter[UUID] = Counter()
        self.seen: dict[UUID, tuple[str, int]] = {}

    def _take_in(self, pool: str, *events: tuple[EmailNotificationCreated, int]) -> None:
        sender: Pool = self.worker[pool].sender if pool else NoPool()
        records = [record(event, offset=n, publication=publication) for n, (event, publication) in enumerate(events)]
        Intake(sender, ring=lambda: None).handle(records)

    @precondition(lambda self: len(self.events) < MAILS)
    @rule(
        target=mails,
        pool=pools,
        policies=st.lists(st.sampled_from(["resend", "hold"]), min_size=1, max_size=3),
        has_deadline=st.booleans(),
        is_too_old=st.sampled_from([False, False, False, True]),
    )
    def take_in(self, pool: str, policies: list[str], has_deadline: bool, is_too_old: bool) -> Any:
        fresh = [
            created(
                on_uncertain=policy,
                send_before=ahead(days=1) if has_deadline else None,
                created_at=ago(days=80 if is_too_old else 0),
            )
            for policy in policies
        ]
        self.events |= {event.notification_id: event for event in fresh}
        self._take_in(pool, *((event, 1) for event in fresh), (fresh[0], 1))
        return multiple(*(event.notification_id for event in fresh))

    @precondition(lambda self: len(self.events) < MAILS)
    @rule(target=mails, pool=pools, key=mails, publication=st.integers(1, 3))
    def take_in_again_with_a_new_one(self, pool: str, key: UUID, publication: int) -> UUID:
        fresh = created()
        self.events[fresh.notification_id] = fresh
        self._take_in(pool, (self.events[key], publication), (fresh, 1), (self.events[key], 1))
        return fresh.notification_id

    @rule(pool=pools, key=mails)
    def ask_again(self, pool: str, key: UUID) -> None:
        told = len(reports())
        self._take_in(pool, (self.events[key], 2))
        mail, answers = SentEmail.objects.get(pk=key), reports()[told:]
        assert [(answer.notification_id, answer.status_version) for answer in answers] == [(key, mail.status_version)]

    @rule(
        worker=workers,
        is_late=st.booleans(),
        answers=st.lists(ANSWERS, max_size=4),
        then=st.sampled_from(["settle", "settle", "pause", "crash", "stop", "stop after the answers"]),
    )
    def work(self, worker: str, answers: list[Answer], *, is_late: bool = False, then: str = "settle") -> None:
        """A round: what was paused is settled by the next one. Late, it takes what the other one holds, too."""
        if is_late:
            self._let_time_pass(set(self.events))
        self.worker[worker].claim()
        for answer in answers:
            self.worker[worker].deliver(self.server, answer)
        if then in ("settle", "stop after the answers"):
            self.worker[worker].read()
        if then == "settle":
            self.worker[worker].sender._settle()
        elif then != "pause":
            self._restart(worker, orderly=then != "crash")

    def _restart(self, worker: str, *, orderly: bool) -> None:
        if orderly:
            self.worker[worker].sender.close()
        self.worker[worker] = Worker()

    @rule(worker=workers, step=st.sampled_from(["claim", "settle", "renew"]))
    def step(self, worker: str, step: str) -> None:
        """Settling is on time, or long after the lease was lost."""
        act: Callable[[], None] = getattr(self.worker[worker], step)
        act()

    @rule(key=mails, deadline=st.booleans())
    def time_passes(self, key: UUID, deadline: bool) -> None:
        """The end of its lease, which its owner sees by its own clock, or of its wait; or of its deadline as well."""
        self._let_time_pass({key})
        if deadline:
            SentEmail.objects.filter(pk=key, send_before__isnull=False).update(send_before=ago(seconds=1))
            for worker in self.worker.values():
                worker.pass_deadline(key)

    def _let_time_pass(self, keys: set[UUID]) -> None:
        SentEmail.objects.filter(pk__in=keys, due_at__isnull=False).update(due_at=ago(minutes=1))
        for worker in self.worker.values():
            worker.forget_leases(keys)

    @rule(key=mails, resolution=st.sampled_from(["delivered", "not_delivered", "resend"]), stale=st.booleans())
    def resolve(self, key: UUID, resolution: Any, stale: bool) -> None:
        """By an operator who has looked: "not delivered" is said only of what was not."""
        mail = SentEmail.objects.get(pk=key)
        if resolution == "not_delivered" and self.server.copies[key]:
            return
        if resolution == "resend" and mail.status == "UNCERTAIN" and not stale:
            self.resends[key] += 1
        request = EmailResolutionRequested(
            event_id=new_id(),
            notification_id=key,
            occurred_at=now(),
            producer="notification-service",
            resolution=resolution,
            reason="asked the recipient",
            operator="ada",
            generation=mail.generation - stale,
        )
        Intake(NoPool(), ring=lambda: None).handle([record(encode(request))])

    @rule(twice=st.booleans())
    def replay_dead_letters(self, twice: bool) -> None:
        letters = list(DeadLetter.objects.open())
        for _ in range(1 + twice):
            list(replay(letters, MailReplayer(), Order("ada", "tried again")))

    @invariant()
    def what_must_always_hold_holds(self) -> None:
        """Open ones are due or leased, settled ones neither; failed ones have their dead letter."""
        assert [kind.sentence for kind in INVARIANTS if kind.broken().exists()] == []

    @invariant()
    def no_copy_is_uncounted_and_none_of_a_held_mail_is_made_unasked(self) -> None:
        for key, on_uncertain, counted in SentEmail.objects.values_list("pk", "on_uncertain", "possible_duplicates"):
            assert self.server.copies[key] <= 1 + counted
            if on_uncertain == "hold":
                assert self.server.copies[key] <= 1 + self.resends[key]

    @invariant()
    def what_has_left_is_sent_uncertain_marked_or_counted(self) -> None:
        said = SentEmail.objects.filter(Q(status__in=("SENT", "UNCERTAIN")) | Q(data_started_at__isnull=False))
        is_said = set(said.values_list("pk", flat=True))
        for key, counted in SentEmail.objects.values_list("pk", "possible_duplicates"):
            assert key in is_said or self.server.copies[key] <= counted

    @invariant()
    def sent_is_final_and_versions_never_fall(self) -> None:
        for key, status, version in SentEmail.objects.values_list("pk", "status", "status_version"):
            was, before = self.seen.get(key, ("", 0))
            assert was != "SENT" or status == "SENT"
            assert version >= before
            assert (status == was) or version > before or not was or {status, was} <= set(SentEmail.OPEN)
            self.seen[key] = (status, version)

    @invariant()
    def each_outcome_is_reported_and_nothing_else_under_its_version(self) -> None:
        told: dict[UUID, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        for report in reports():
            told[report.notification_id][report.status_version].add(STATUS_OF[type(report).__name__])
        for key, status, version in SentEmail.objects.values_list("pk", "status", "status_version"):
            assert set(told[key]) - {0} == set(range(1, version + 1))
            assert all(len(words) == 1 for words in told[key].values())
            assert not version or told[key][version] == {"open" if status in SentEmail.OPEN else status}

    @invariant()
    def each_failure_has_the_dead_letter_of_its_generation(self) -> None:
        """By which it can be replayed."""
        for key, generation in SentEmail.objects.filter(status="FAILED").values_list("pk", "generation"):
            assert DeadLetter.objects.open().filter(notification_id=key, generation=generation).exists()


@pytest.mark.fault(31, 36, 37, 47, 58)
@pytest.mark.django_db
def test_no_copy_is_uncounted_and_no_outcome_unsaid_whatever_happens_to_mails() -> None:
    run_machine(Mails)


@pytest.fixture
def machine(db: None) -> Iterator[Mails]:
    """For sequences that are too rare to be drawn."""
    mails = Mails()
    yield mails
    mails.teardown()


def test_a_mail_that_was_replayed_meanwhile_fails_under_its_new_generation(machine: Mails) -> None:
    """Its worker A had it all the time, so the dead letter must not be taken for the one that was replayed."""
    machine.take_in("A", ["resend"], has_deadline=False, is_too_old=False)
    machine.work("B", [Answer.REFUSED], is_late=True)
    machine.work("B", [Answer.REFUSED], is_late=True)
    machine.replay_dead_letters(twice=False)
    machine.work("A", [Answer.REFUSED])
    assert SentEmail.objects.get().status == "FAILED"
    machine.each_failure_has_the_dead_letter_of_its_generation()
    machine.each_outcome_is_reported_and_nothing_else_under_its_version()


@pytest.mark.fault(47)
def test_a_held_mail_that_another_worker_began_meanwhile_is_not_begun_by_its_first_one(machine: Mails) -> None:
    """B died over it after DATA: A, in whose queue it still waits, claims it again and finds B's mark."""
    machine.take_in("A", ["hold"], has_deadline=False, is_too_old=False)
    machine.time_passes(next(iter(machine.events)), deadline=False)
    machine.work("B", [Answer.ACCEPTED], then="crash")
    machine.work("A", [Answer.ACCEPTED], is_late=True)
    machine.no_copy_is_uncounted_and_none_of_a_held_mail_is_made_unasked()
    assert SentEmail.objects.get().status == "UNCERTAIN"


@pytest.mark.fault(37)
@pytest.mark.parametrize("pool", ["A", ""])
@pytest.mark.parametrize(("on_uncertain", "copies"), [("resend", 2), ("hold", 1)])
def test_what_a_worker_died_over_after_data_is_uncertain(
    machine: Mails, pool: str, on_uncertain: str, copies: int
) -> None:
    """The server took it, and nobody heard: a second copy is counted, or not made without an operator's word."""
    machine.take_in(pool, [on_uncertain], has_deadline=False, is_too_old=False)
    machine.work("A", [Answer.ACCEPTED], then="crash")
    for _ in range(2):
        machine.work("B", [Answer.ACCEPTED], is_late=True)
    mail = SentEmail.objects.get()
    assert (machine.server.copies[mail.pk], mail.possible_duplicates) == (copies, copies - 1)
    assert mail.status == ("SENT" if on_uncertain == "resend" else "UNCERTAIN")
