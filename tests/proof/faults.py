"""The faults of the proof, each with its name."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from shared_events.contracts.topics import NOTIFICATION_EVENTS, NOTIFICATION_STATUS
from shared_events.runtime.crash_points import CrashPoint
from tests.proof import injections
from tests.proof.injections import Scene
from tests.proof.load import Mix
from tests.proof.proxy import Side, is_commit, is_content, is_greeting, smtp_command
from tests.proof.stage import PROCESSES
from tests.smtp_servers import Step

Inject = Callable[[Scene], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """`name` is unique. `quick`: in CI's choice; `lasting`: may be drawn again and again while one load runs for an hour.

    `api_away`: the API may refuse meanwhile, as it or its database is what the fault takes away. `dead_letters`: how many are right: a
    number, one for each that FAILED, or some that were all replayed.
    """

    name: str
    inject: Inject
    mix: Mix = field(default_factory=Mix)
    quick: bool = False
    lasting: bool = True
    api_away: bool = False
    dead_letters: int | Literal["failed", "replayed"] = 0

    @property
    def is_none(self) -> bool:
        return self.inject is injections.nothing

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
            _crash(
                process,
                point,
                partial(injections.crash, process=process),
                quick=(process, point) in QUICK_CRASHES,
                api_away=process == API,
            )
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
                "replay_dead_letters", point, injections.crash_in_replay, mix=SOME_REFUSED, lasting=False, dead_letters="replayed"
            )
            for point in (POINT.REPLAY_UNCOMMITTED, POINT.REPLAY_COMMITTED)
        ),
    ]  # fmt: skip


def _processes() -> list[Fault]:
    return [
        Fault(name="kill -9 of workers, one after the other", inject=injections.kill_one_after_the_other),
        Fault(
            name="kill -9 of every process at once",
            inject=partial(injections.kill, processes=PROCESSES),
            quick=True,
            api_away=True,
        ),
        Fault(
            name="SIGTERM to every process, one after the other",
            inject=injections.end_one_after_the_other,
            api_away=True,
        ),
        Fault(
            name="power cut: every process and service at once",
            inject=injections.power_cut,
            lasting=False,
            api_away=True,
        ),
        Fault(name="two of every worker, one of each killed", inject=injections.two_of_every_worker, lasting=False),
    ]


SERVICES = ("kafka", "mariadb", "redis", "smtp_sink")


def _services() -> list[Fault]:
    ways: dict[str, Callable[..., None]] = {
        "stopped": injections.stop,
        "killed": injections.stop_after_a_kill,
        "frozen": injections.freeze,
        "restarted, twice": injections.restart,
    }
    taken_away = [
        Fault(
            name=f"{service} {words}",
            inject=partial(inject, service=service),
            quick=words == "stopped" and service in {"kafka", "mariadb"},
            api_away=service == "mariadb",
        )
        for service in SERVICES
        for words, inject in ways.items()
    ]
    emptied: dict[str, Callable[[Scene], None]] = {
        "kafka emptied": injections.empty_kafka,
        "status topic lost": partial(injections.lose_topic, topic=NOTIFICATION_STATUS),
        "events topic lost": partial(injections.lose_topic, topic=NOTIFICATION_EVENTS),
        "full queues: 2,000 mails due at once after an outage of kafka": partial(injections.burst, away="kafka"),
        "full queues: 2,000 mails due at once after an outage of the mail server": partial(
            injections.burst, away="smtp_sink"
        ),
    }
    return [
        *taken_away,
        *(
            Fault(name=name, inject=inject, quick=name == "kafka emptied", lasting=False)
            for name, inject in emptied.items()
        ),
        Fault(name="redis emptied, again and again", inject=injections.empty_redis),
        Fault(name="redis out of memory", inject=injections.fill_redis),
    ]


def _connections() -> list[Fault]:
    """Every connection of one kind, in the same four ways."""
    late = {"notification_database": 0.02, "email_database": 0.02, "redis": 0.05, "smtp": 2.0}
    proxies: tuple[injections.ProxyName, ...] = ("notification_database", "email_database", "redis", "smtp")
    found = []
    for proxy in proxies:
        label = "SMTP" if proxy == "smtp" else proxy.replace("_", " ")
        ways = {
            "partitioned": partial(injections.partition, proxy=proxy),
            "all connections reset": partial(injections.reset, proxy=proxy),
            "connections refused": partial(injections.refuse, proxy=proxy),
            f"every answer {late[proxy]:g} s late": partial(injections.slow_answers, proxy=proxy, seconds=late[proxy]),
        }
        found += [
            Fault(
                name=f"{label}: {words}",
                inject=inject,
                quick=(proxy, words) == ("smtp", "connections refused"),
                api_away=proxy == "notification_database",
            )
            for words, inject in ways.items()
        ]
    return found


def _commits() -> list[Fault]:
    sides = {Side.BEFORE: "before", Side.AFTER: "after"}
    of_posts = [
        Fault(
            name=f"notification database: connection cut {words} COMMIT",
            inject=partial(injections.cut_commits_of_posts, side=side),
            quick=side is Side.AFTER,
            api_away=True,
        )
        for side, words in sides.items()
    ]
    of_mails = [
        Fault(
            name=f"email database: connection cut {words} COMMIT",
            inject=partial(injections.cut, proxy="email_database", matches=is_commit, side=side),
            quick=side is Side.AFTER,
        )
        for side, words in sides.items()
    ]
    return [*of_posts, *of_mails]


def _smtp_phases() -> list[Fault]:
    cut = partial(injections.cut, proxy="smtp")
    opening = {
        "before the banner": partial(injections.cut_new_connections, matches=is_greeting, side=Side.BEFORE),
        "at the banner": partial(injections.cut_new_connections, matches=is_greeting, side=Side.AFTER),
        "before EHLO": partial(injections.cut_new_connections, matches=smtp_command("EHLO"), side=Side.BEFORE),
        "after EHLO": partial(injections.cut_new_connections, matches=smtp_command("EHLO"), side=Side.AFTER),
    }
    commands = {
        # MAIL and RCPT come in one go where the server takes that, as this one does (RFC 2920).
        f"{side.value} {words}": partial(cut, matches=smtp_command(verb), side=side, times=3)
        for verb, words in (("MAIL", "MAIL and RCPT"), ("DATA", "DATA"))
        for side in (Side.BEFORE, Side.HALF, Side.AFTER)
    }
    content = {
        "before the content": partial(cut, matches=is_content, side=Side.BEFORE),
        "amid the content": partial(cut, matches=is_content, side=Side.HALF),
        "between the final dot and its answer": partial(cut, matches=is_content, side=Side.AFTER),
        "after 250": partial(cut, matches=is_content, side=Side.ANSWERED),
    }
    quick = {"amid the content", "between the final dot and its answer"}
    return [
        Fault(name=f"SMTP: cut {words}", inject=inject, quick=words in quick)
        for words, inject in {**opening, **commands, **content}.items()
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
            dead_letters="failed",
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
            dead_letters=injections.UNREADABLE,
            lasting=False,
        ),
    ]


FAULTS: tuple[Fault, ...] = (
    Fault(name="none", inject=injections.nothing, quick=True, lasting=False),
    *_crashes(),
    *_processes(),
    *_services(),
    *_connections(),
    *_commits(),
    *_smtp_phases(),
    *_answers(),
    *_records(),
)
