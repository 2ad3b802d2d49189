"""How each fault is made to happen on a stage while a load runs, and mended again."""

import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import redis
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from shared_events.contracts.topics import NOTIFICATION_EVENTS, NOTIFICATION_STATUS
from shared_events.runtime.crash_points import CrashPoint
from tests.end_to_end import topics
from tests.end_to_end.platform import WORKERS, wait_until
from tests.proof.load import REFUSED, Load
from tests.proof.proxy import Cut, FaultProxy, Side, is_commit
from tests.proof.stage import PROCESSES, Stage
from tests.smtp_servers import Script, Step

OUTAGE_SECONDS = 6.0
FREEZE_SECONDS = 7.0
CUTS = 6
BURST = 2000
COPIES = 1000
NOBODY = b"nobody"
TOPICS = (NOTIFICATION_EVENTS, NOTIFICATION_STATUS)
UNREADABLE_VALUES = (
    None,
    b"",
    b"{",
    b"\xff\xfe",
    b"[]",
    b'{"event_type":"NO_SUCH_TYPE","schema_version":1}',
    b'{"event_type":"EMAIL_SENT","schema_version":99}',
    b'{"event_type":"EMAIL_SENT","schema_version":1}',
)
UNREADABLE = len(TOPICS) * len(UNREADABLE_VALUES)
ProxyName = Literal["notification_database", "email_database", "smtp", "redis"]


@dataclass(slots=True, kw_only=True)
class Scene:
    """One fault's run: the stage, the load, and chance from the proof's seed."""

    stage: Stage
    load: Load
    chance: random.Random


def nothing(scene: Scene) -> None:
    scene.load.wait_for_more(20)


# Processes that end at a place of their code


def crash(scene: Scene, *, process: str, point: CrashPoint, nth: int = 2) -> None:
    scene.stage.crash(process, f"{point}:{nth}")


def crash_while_mails_are_due_again(scene: Scene, *, point: CrashPoint) -> None:
    """`retry_emails` has work where the first try of each mail was refused for now."""
    refused_once = {"rcpt": [Step(reply="450 4.2.1 Busy", times=1)]}
    scene.stage.script(Script(recipients={"*": refused_once}))
    scene.stage.smtp.reset_all()
    scene.stage.crash("retry_emails", f"{point}:2")
    scene.stage.heal()


def crash_while_reconciling(scene: Scene, *, point: CrashPoint) -> None:
    """The reconciler has work where no status comes."""
    scene.stage.end("consume_status", kill=False)
    scene.stage.crash("reconcile_notifications", point)
    scene.stage.revive()


def crash_in_replay(scene: Scene, *, point: CrashPoint) -> None:
    """The command that replays dead letters ends itself amid them; run again, it does the rest."""
    platform = scene.stage.platform
    refused = {"rcpt": ["550 5.1.1 No such user"]}
    scene.stage.script(Script(recipients={f"{REFUSED}*": refused}))
    scene.stage.smtp.reset_all()
    open_letters = "replayed_at IS NULL AND dismissed_at IS NULL"
    wait_until(lambda: platform.count("email", "dead_letters", open_letters) >= 3, 60, "three dead letters")
    scene.stage.heal()
    arguments = ("replay_dead_letters", "--class", "recipient", "--reason", "the server was mended")
    environment = platform.environment("email_migrate", CRASH_POINT=f"{point}:2")
    ended = platform.completed(["python", "email_project/manage.py", *arguments], environment)
    assert ended.returncode == -signal.SIGKILL, f"the command ended with {ended.returncode}: {ended.stderr[-500:]}"
    scene.load.mix.refused = 0.0
    time.sleep(1)  # those on their way to the refusing server have come back
    platform.manage("email_project", *arguments)
    assert platform.count("email", "dead_letters", open_letters) == 0


def kill(scene: Scene, *, processes: Sequence[str]) -> None:
    for name in processes:
        scene.stage.end(name, kill=True)
    scene.stage.revive()


def kill_one_after_the_other(scene: Scene) -> None:
    for _ in range(6):
        kill(scene, processes=[scene.chance.choice(WORKERS)])
        scene.stage.wait_until_started()


def end_one_after_the_other(scene: Scene) -> None:
    for name in PROCESSES:
        scene.stage.end(name, kill=False)
        scene.stage.revive()


def power_cut(scene: Scene) -> None:
    """Everything at once: processes, Kafka, the database, Redis, the mail server."""
    for process in scene.stage.platform.processes:
        process.kill()
    for service in scene.stage.services.all:
        service.kill()
    scene.stage.heal()


# Services


def stop(scene: Scene, *, service: str) -> None:
    scene.stage.services.stop(service)
    time.sleep(OUTAGE_SECONDS)
    scene.stage.services.start(service)


def stop_after_a_kill(scene: Scene, *, service: str) -> None:
    getattr(scene.stage.services, service).kill()
    time.sleep(OUTAGE_SECONDS / 2)
    scene.stage.services.start(service)


def restart(scene: Scene, *, service: str) -> None:
    for _ in range(2):
        scene.stage.services.stop(service)
        scene.stage.services.start(service)
        scene.load.wait_for_more(4)


def freeze(scene: Scene, *, service: str) -> None:
    getattr(scene.stage.services, service).freeze()
    time.sleep(FREEZE_SECONDS)
    getattr(scene.stage.services, service).thaw()


def empty_kafka(scene: Scene) -> None:
    scene.stage.services.stop("kafka")
    scene.stage.services.kafka.wipe()
    scene.stage.services.start("kafka")
    scene.stage.platform.run("create_topics")


def lose_topic(scene: Scene, *, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": scene.stage.services.kafka.bootstrap_servers})
    for future in admin.delete_topics([topic], operation_timeout=10).values():
        future.result(20)
    time.sleep(2)
    wait_until(lambda: topic not in admin.list_topics(timeout=10).topics, 20, f"{topic} is gone")
    scene.stage.platform.run("create_topics")


def empty_redis(scene: Scene) -> None:
    for _ in range(10):
        with redis.Redis.from_url(scene.stage.services.environment()["REDIS_URL"]) as client:
            client.flushall()
        scene.load.wait_for_more(3)


def fill_redis(scene: Scene) -> None:
    """A Redis that may store nothing more refuses writes and evicts."""
    with redis.Redis.from_url(scene.stage.services.environment()["REDIS_URL"]) as client:
        client.config_set("maxmemory", "1mb")
        try:
            scene.load.wait_for_more(20)
        finally:
            client.config_set("maxmemory", "0")


# Connections


def proxy_of(scene: Scene, name: ProxyName) -> FaultProxy:
    found: FaultProxy = getattr(scene.stage, name)
    return found


def cut(scene: Scene, *, proxy: ProxyName, matches: Callable[[bytes], bool], side: Side, times: int = CUTS) -> None:
    found = proxy_of(scene, proxy)
    before = found.cuts_made
    found.cut(Cut(matches=matches, side=side, times=times))
    wait_until(
        lambda: found.cuts_made - before == times, 90, f"{times} connections cut, now {found.cuts_made - before}"
    )


def cut_new_connections(scene: Scene, *, matches: Callable[[bytes], bool], side: Side) -> None:
    """Connections are reused, so those that are open are ended first."""
    found = scene.stage.smtp
    before = found.cuts_made
    found.cut(Cut(matches=matches, side=side, times=2))
    found.reset_all()
    wait_until(lambda: found.cuts_made - before == 2, 90, "two new connections cut")


def cut_commits_of_posts(scene: Scene, *, side: Side) -> None:
    """Cuts at every COMMIT until some of them were those of requests, whose outcome the API then cannot know."""
    unknown = scene.load.unknown_outcomes
    scene.stage.notification_database.cut(Cut(matches=is_commit, side=side, times=10_000))
    wait_until(lambda: scene.load.unknown_outcomes >= unknown + 3, 60, "three requests of unknown outcome")
    scene.stage.notification_database.heal()


def wait_until_disturbed(proxy: FaultProxy, before: int, what: str) -> None:
    """A process that backs off after an earlier fault comes to the proxy late: up to the breaker's longest pause."""
    wait_until(lambda: proxy.disturbed > before, 90, what)


def reset(scene: Scene, *, proxy: ProxyName) -> None:
    found = proxy_of(scene, proxy)
    for _ in range(5):
        before = found.disturbed

        def reset_open(before: int = before) -> bool:
            found.reset_all()
            return found.disturbed > before

        wait_until(reset_open, 90, "a connection that was open")
        scene.load.wait_for_more(3)


def partition(scene: Scene, *, proxy: ProxyName) -> None:
    found = proxy_of(scene, proxy)
    before = found.disturbed
    found.black_hole()
    time.sleep(FREEZE_SECONDS)
    wait_until_disturbed(found, before, "something held back")
    found.heal()


def slow_answers(scene: Scene, *, proxy: ProxyName, seconds: float) -> None:
    found = proxy_of(scene, proxy)
    before = found.disturbed
    found.answer_delay_seconds = seconds
    time.sleep(OUTAGE_SECONDS)
    wait_until_disturbed(found, before, "an answer delayed")
    found.answer_delay_seconds = 0.0


def refuse(scene: Scene, *, proxy: ProxyName) -> None:
    found = proxy_of(scene, proxy)
    before = found.disturbed
    found.refuse()
    time.sleep(OUTAGE_SECONDS)
    wait_until_disturbed(found, before, "a connection refused")
    found.heal()


# What a mail server says


def answer(scene: Scene, *, steps: dict[str, list[Step | str]], mails: int = 15) -> None:
    scene.stage.script(Script(steps=steps))
    scene.stage.smtp.reset_all()
    scene.load.wait_for_more(mails)
    wait_until(lambda: all(map(scene.stage.scripted.taken, steps)), 60, f"the server has said it at {', '.join(steps)}")
    time.sleep(2)
    scene.stage.heal()


def refuse_some_for_good(scene: Scene) -> None:
    refused = {"rcpt": ["550 5.1.1 No such user"]}
    scene.stage.script(Script(recipients={f"{REFUSED}*": refused}))
    scene.stage.smtp.reset_all()
    dead = "class = 'recipient'"
    wait_until(lambda: scene.stage.platform.count("email", "dead_letters", dead) >= 3, 60, "three were refused")
    scene.load.mix.refused = 0.0
    scene.load.wait_for_more(8)
    scene.stage.converge(30)
    scene.stage.heal()


# Records


def deliver_twice(scene: Scene, *, topic: str) -> None:
    """Records of a topic once more, in an order by chance: of this load's up to COPIES, and as many that are older."""
    servers = scene.stage.services.kafka.bootstrap_servers
    found = [
        (bytes(message.key() or b""), bytes(message.value() or b""))
        for message in topics.messages(servers, topic)
        if message.key() != NOBODY
    ]
    own = {key.encode() for key in list(scene.load.accepted)}
    again = [record for record in found if record[0] in own]
    assert again, "no record of this load is on the topic"
    older = [record for record in found if record[0] not in own]
    again = [record for some in (again, older) for record in scene.chance.sample(some, min(len(some), COPIES))]
    scene.chance.shuffle(again)
    producer = Producer({"bootstrap.servers": servers})
    for key, value in again:
        producer.produce(topic, value, key)
        producer.poll(0)
    assert producer.flush(30) == 0


def unreadable(scene: Scene) -> None:
    producer = Producer({"bootstrap.servers": scene.stage.services.kafka.bootstrap_servers})
    for topic in TOPICS:
        for value in UNREADABLE_VALUES:
            producer.produce(topic, value, NOBODY)
    assert producer.flush(30) == 0


# Much at once


def burst(scene: Scene, *, away: str) -> None:
    """Much is accepted while `away` is, and becomes due in one instant when it is back."""
    scene.stage.services.stop(away)
    scene.load.burst(BURST)
    scene.stage.services.start(away)


def two_of_every_worker(scene: Scene) -> None:
    stage = scene.stage
    stage.replicas, before = stage.replicas + 1, stage.replicas
    stage.revive()
    stage.wait_until_started()
    try:
        scene.load.burst(500)
        for name in WORKERS:
            stage.end(name, kill=True)
            scene.load.wait_for_more(2)
        stage.revive()
        scene.load.wait_for_more(10)
    finally:
        stage.replicas = before
        for name in WORKERS:
            while stage.running(name) > before:
                stage.end(name, kill=False)
