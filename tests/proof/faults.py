"""The faults of the proof, each with its name."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from shared_events.contracts.topics import NOTIFICATION_EVENTS, NOTIFICATION_STATUS
from shared_events.runtime.crash_points import CrashPoint
from tests.proof import injections
from tests.proof.injections import Scene
from tests.proof.load import Mix
from tests.proof.proxy import Side, is_commit, is_content, smtp_command
from tests.proof.stage import PROCESSES
from tests.smtp_servers import Step

Inject = Callable[[Scene], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """`name` is unique. `quick`: in CI's choice; `lasting`: may be drawn again and again while one load runs for an hour."""

    name: str
    inject: Inject
    mix: Mix = field(default_factory=Mix)
    quick: bool = False
    lasting: bool = True
    dead_letters: bool = False  # whether some are right

    def mix_of(self) -> Mix:
        """A mix of its own for one run, which may change it."""
        return replace(self.mix)


API, RELAY, EMAIL_RELAY = "notification_api", "notification_relay_outbox", "email_relay_outbox"
INTAKE, RETRY, STATUS, RECONCILER = "consume_events", "retry_emails", "consume_status", "reconcile_notifications"
POINT = CrashPoint
OUTBOX_POINTS = (
    POINT.CLAIM_UNCOMMITTED, POINT.CLAIM_COMMITTED, POINT.PRODUCED, POINT.ACKNOWLEDGED,
    POINT.OUTBOX_SETTLE_UNCOMMITTED, POINT.OUTBOX_SETTLE_COMMITTED,
)  # fmt: skip
SENDER_POINTS = (
    POINT.RECIPIENT_ACCEPTED, POINT.CONTENT_INVITED, POINT.DOT_SENT, POINT.MAIL_ACCEPTED,
    POINT.MAIL_SETTLE_UNCOMMITTED, POINT.MAIL_SETTLE_COMMITTED,
)  # fmt: skip
CRASHES = {
    API: (POINT.ACCEPTANCE_UNCOMMITTED, POINT.ACCEPTANCE_COMMITTED, POINT.ANSWER_CACHED),
    RELAY: OUTBOX_POINTS,
    EMAIL_RELAY: OUTBOX_POINTS,
    INTAKE: (
        POINT.RECORDS_TAKEN, POINT.INTAKE_UNCOMMITTED, POINT.INTAKE_COMMITTED, POINT.OFFSETS_COMMITTED, *SENDER_POINTS,
    ),
    STATUS: (POINT.RECORDS_TAKEN, POINT.STATUS_UNCOMMITTED, POINT.STATUS_COMMITTED, POINT.OFFSETS_COMMITTED),
}  # fmt: skip
QUICK_CRASHES = {
    (API, POINT.ACCEPTANCE_COMMITTED), (RELAY, POINT.ACKNOWLEDGED), (INTAKE, POINT.INTAKE_COMMITTED),
    (INTAKE, POINT.DOT_SENT), (STATUS, POINT.STATUS_COMMITTED),
}  # fmt: skip
SOME_REFUSED = Mix(refused=0.3, pause_seconds=0.15)


def _crash(process: str, point: CrashPoint, inject: Callable[..., None], **also: Any) -> Fault:
    return Fault(name=f"kill -9 {process} at {point}", inject=partial(inject, point=point), **also)


def _crashes() -> list[Fault]:
    return [
        *(
            _crash(process, point, partial(injections.crash, process=process), quick=(process, point) in QUICK_CRASHES)
            for process, points in CRASHES.items()
            for point in points
        ),
        *(
            _crash(RETRY, point, injections.crash_while_mails_are_due_again)
            for point in (POINT.CLAIM_UNCOMMITTED, POINT.CLAIM_COMMITTED, *SENDER_POINTS)
        ),
        *(
            _crash(RECONCILER, point, injections.crash_while_reconciling, lasting=False)
            for point in (POINT.RECONCILE_UNCOMMITTED, POINT.RECONCILE_COMMITTED)
        ),
        *(
            _crash(
                "replay_dead_letters", point, injections.crash_in_replay, mix=SOME_REFUSED, lasting=False, dead_letters=True
            )
            for point in (POINT.REPLAY_UNCOMMITTED, POINT.REPLAY_COMMITTED)
        ),
    ]  # fmt: skip


def _processes() -> list[Fault]:
    return [
        Fault(name="kill -9 of workers, one after the other", inject=injections.kill_one_after_the_other),
        Fault(
            name="kill -9 of every process at once", inject=partial(injections.kill, processes=PROCESSES), quick=True
        ),
        Fault(name="SIGTERM to every process, one after the other", inject=injections.end_one_after_the_other),
        Fault(name="power cut: every process and service at once", inject=injections.power_cut, lasting=False),
        Fault(name="two of every worker, one of each killed", inject=injections.two_of_every_worker, lasting=False),
    ]


def _services() -> list[Fault]:
    found = []
    for service in ("kafka", "mariadb", "redis", "smtp_sink"):
        found += [
            Fault(
                name=f"{service} stopped",
                inject=partial(injections.stop, service=service),
                quick=service in {"kafka", "mariadb"},
            ),
            Fault(name=f"{service} killed", inject=partial(injections.stop_after_a_kill, service=service)),
            Fault(name=f"{service} frozen", inject=partial(injections.freeze, service=service)),
        ]
    found += [
        Fault(name=f"{service} restarted, twice", inject=partial(injections.restart, service=service))
        for service in ("kafka", "mariadb")
    ]
    return [
        *found,
        Fault(name="kafka emptied", inject=injections.empty_kafka, quick=True, lasting=False),
        Fault(
            name="status topic lost", inject=partial(injections.lose_topic, topic=NOTIFICATION_STATUS), lasting=False
        ),
        Fault(
            name="events topic lost", inject=partial(injections.lose_topic, topic=NOTIFICATION_EVENTS), lasting=False
        ),
        Fault(name="redis emptied, again and again", inject=injections.empty_redis),
        Fault(name="redis out of memory", inject=injections.fill_redis),
        Fault(
            name="2,000 mails due at once after an outage of kafka",
            inject=partial(injections.burst, away="kafka"),
            lasting=False,
        ),
        Fault(
            name="2,000 mails due at once after an outage of the mail server",
            inject=partial(injections.burst, away="smtp_sink"),
            lasting=False,
        ),
    ]


def _database_connections() -> list[Fault]:
    databases: tuple[injections.ProxyName, ...] = ("notification_database", "email_database")
    found = []
    for proxy in databases:
        label = proxy.replace("_", " ")
        before, after = (
            partial(injections.cut, proxy=proxy, matches=is_commit, side=side) for side in (Side.BEFORE, Side.AFTER)
        )
        late = partial(injections.slow_answers, proxy=proxy, seconds=0.02)
        found += [
            Fault(name=f"{label}: connection cut before COMMIT", inject=before),
            Fault(name=f"{label}: connection cut after COMMIT", inject=after, quick=True),
            Fault(name=f"{label}: partitioned", inject=partial(injections.partition, proxy=proxy)),
            Fault(name=f"{label}: all connections reset", inject=partial(injections.reset, proxy=proxy)),
            Fault(name=f"{label}: answers 20 ms late", inject=late),
        ]
    return found


def _smtp_connections() -> list[Fault]:
    commands = [
        Fault(
            name=f"SMTP: cut {side.value} {verb}",
            inject=partial(injections.cut, proxy="smtp", matches=smtp_command(verb), side=side, times=3),
        )
        for verb in ("MAIL", "RCPT", "DATA")
        for side in (Side.BEFORE, Side.AFTER)
    ]
    moments = {
        Side.BEFORE: "before the content",
        Side.HALF: "amid the content",
        Side.AFTER: "between the final dot and its answer",
        Side.ANSWERED: "after 250",
    }
    content = [
        Fault(
            name=f"SMTP: cut {words}",
            inject=partial(injections.cut, proxy="smtp", matches=is_content, side=side),
            quick=side in {Side.HALF, Side.AFTER},
        )
        for side, words in moments.items()
    ]
    late = partial(injections.slow_answers, proxy="smtp", seconds=2.0)
    return [
        Fault(name="SMTP: cut before the banner", inject=injections.cut_new_connections),
        *commands,
        *content,
        Fault(name="SMTP: partitioned", inject=partial(injections.partition, proxy="smtp")),
        Fault(name="SMTP: connections refused", inject=partial(injections.refuse, proxy="smtp"), quick=True),
        Fault(name="SMTP: every answer two seconds late", inject=late),
    ]


def _answers() -> list[Fault]:
    scripts: dict[str, dict[str, list[Step | str]]] = {
        "421 at the banner": {"banner": ["421 4.3.2 Closing"]},
        "554 at the banner": {"banner": ["554 5.3.2 No service"]},
        "421 at MAIL": {"mail": [Step(reply="421 4.3.2 Closing", then="close", times=5)]},
        "451 at MAIL": {"mail": [Step(reply="451 4.3.0 Try again", times=10)]},
        "450 greylisting": {"rcpt": [Step(reply="451 4.3.0 Come back", times=10)]},
        "452 mailbox full": {"rcpt": [Step(reply="452 4.2.2 Mailbox full", times=10)]},
        "451 after the final dot": {"reply": [Step(reply="451 4.3.0 Not now", times=10)]},
        "530 authentication wanted": {"mail": ["530 5.7.0 Authentication required"]},
        "a malformed answer to the final dot": {"reply": [Step(reply="well done", times=4)]},
        "no answer to the final dot": {"reply": [Step(reply="", times=4)]},
    }
    return [
        *(
            Fault(
                name=f"mail server says: {words}", inject=partial(injections.answer, steps=steps), quick="530" in words
            )
            for words, steps in scripts.items()
        ),
        Fault(
            name="mail server says: 550 to some",
            inject=injections.refuse_some_for_good,
            mix=SOME_REFUSED,
            lasting=False,
            dead_letters=True,
        ),
    ]


def _records() -> list[Fault]:
    events = partial(injections.deliver_twice, topic=NOTIFICATION_EVENTS)
    statuses = partial(injections.deliver_twice, topic=NOTIFICATION_STATUS)
    return [
        Fault(name="events delivered twice and out of order", inject=events, quick=True),
        Fault(name="statuses delivered twice and out of order", inject=statuses),
        Fault(
            name="unreadable records on both topics",
            inject=injections.unreadable,
            quick=True,
            dead_letters=True,
            lasting=False,
        ),
    ]


FAULTS: tuple[Fault, ...] = (
    Fault(name="none", inject=injections.nothing, quick=True, lasting=False),
    *_crashes(),
    *_processes(),
    *_services(),
    *_database_connections(),
    *_smtp_connections(),
    *_answers(),
    *_records(),
)
