"""The consumer loop: an offset is committed after the transaction that holds its effect, and no record blocks its partition."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from shared_events.contracts.topics import PUBLICATION_HEADER
from shared_events.runtime.backoff import LoopBackoff
from shared_events.runtime.breaker import CircuitBreaker
from shared_events.runtime.crash_points import CrashPoint, reach

POLL_SECONDS = 0.5
BATCH_BYTES = 4 * 1024 * 1024
LOG_EVERY_SECONDS = 60.0
FUSE_RECORDS = 20
FUSE_MAXIMUM_SECONDS = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """One record as Kafka had it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    @property
    def publication(self) -> int:
        """How often its outbox row was made to be published; 1 where the header is absent or no number."""
        for name, value in self.headers:
            if name == PUBLICATION_HEADER and value is not None and value.isdigit():
                return int(value)
        return 1


class DeadLetterWriter(Protocol):
    def __call__(self, record: Record, *, letter_class: str, cause: str) -> None:
        """Stores the record in a transaction of its own; raises the database's errors."""


class FuseBlownError(RuntimeError):
    """Nothing shows that the records are at fault and not this version of the code: they must not become dead letters."""


def fuse_circuit(*, clock: Callable[[], float] = time.monotonic) -> CircuitBreaker:
    """The loop's fuse, for a status page: open while records are held that the handler fails on."""
    return CircuitBreaker("fuse", maximum_seconds=FUSE_MAXIMUM_SECONDS, clock=clock)


def record_of(message: Message) -> Record:
    return Record(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        timestamp_ms=message.timestamp()[1],
        key=_as_bytes(message.key()),
        value=_as_bytes(message.value()),
        headers=tuple((str(name), _as_bytes(value)) for name, value in list(message.headers() or ())),
    )


def _as_bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


class ConsumerLoop:
    """Takes records of one topic in batches and hands them to `handle`, which commits the effect of each or its dead letter.

    `handle` raises an error that `is_passing` where it can do neither now: the partitions are paused, polling goes on (so that the
    group keeps its member), and the same records are handed over again. Any other error is pinned to the record that causes it, which
    goes to `write_dead_letter`, but not before this process has handled another one: until then nothing tells a bad record from a bad
    deploy. After more than `fuse_records` of them in a row (0: no limit, no proof) that has to be shown anew. Meanwhile `fuse` is open,
    nothing is committed, and the same records are tried again every few seconds, so that a restart gives none of them up either.

    `renew` is asked each time and returns another consumer where the topic was made anew: records held back of the old one are dropped
    with it, as the rest of it was.
    """

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        handle: Callable[[Sequence[Record]], None],
        *,
        write_dead_letter: DeadLetterWriter,
        is_passing: Callable[[BaseException], bool],
        batch_records: int = 500,
        fuse_records: int = FUSE_RECORDS,
        fuse: CircuitBreaker | None = None,
        renew: Callable[[], Consumer | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._renew = renew
        self._handle = handle
        self._write_dead_letter = write_dead_letter
        self._is_passing = is_passing
        self._batch_records = batch_records
        self._fuse_records = fuse_records
        self._clock = clock
        self._pending: list[Record] = []
        self._retry_at = 0.0
        self._backoff = LoopBackoff()
        self._is_paused = False
        self._fuse = fuse or fuse_circuit(clock=clock)
        self._has_handled = fuse_records == 0  # and since the fuse was blown the last time
        self._done: set[tuple[str, int, int]] = set()  # of the batch under way, where its records are tried one by one
        self._ends: dict[tuple[str, int], int] = {}  # of what was handled behind a record that is held
        self._failed_in_a_row = 0
        self._logged_at = -LOG_EVERY_SECONDS
        self._subscribe()

    def run_once(self, poll_seconds: float = POLL_SECONDS) -> int:
        """Takes and handles one batch; returns how many records were handled. Blocks up to `poll_seconds` for the first record."""
        self._go_on_with(self._renew())
        self._collect(min(poll_seconds, 0.1) if self._pending else poll_seconds)
        if not self._pending or self._clock() < self._retry_at or not self._fuse.allow():
            return 0
        batch = self._pending
        reach(CrashPoint.RECORDS_TAKEN)
        failed_before = self._failed_in_a_row
        try:
            self._settle(batch)
        except FuseBlownError as error:
            self._forget_handled(batch)
            self._hold_for_proof(error)
            return 0
        except Exception as error:
            if not self._is_passing(error):
                raise
            self._failed_in_a_row = failed_before  # the same records are counted when they are handed over again
            self._hold(error)
            return 0
        self._resume(batch)
        return len(batch)

    def close(self) -> None:
        """Leaves the group. Whatever was handled is committed already; whatever was not will be delivered to the next owner."""
        self._consumer.close()

    def _subscribe(self) -> None:
        self._consumer.subscribe([self._topic], on_revoke=self._on_revoke, on_lost=self._on_revoke)

    def _go_on_with(self, fresh: Consumer | None) -> None:
        if fresh is None:
            return
        self._pending = []
        self._ends = {}
        self._retry_at = 0.0
        self._is_paused = False
        self._backoff.reset()
        self._fuse.success()
        self._consumer.close()
        self._consumer = fresh
        self._subscribe()

    def _collect(self, poll_seconds: float) -> None:
        # consume(n, timeout) waits for n records or the time-out, so the first one is waited for alone. Each is pending at once, as the
        # next poll may revoke its partition.
        taken = size = 0
        timeout = poll_seconds
        # With records held back there is one poll all the same: the group would lose a member that does not poll.
        limit = self._batch_records if self._fuse.is_closed else self._fuse_records + 1
        room = max(1, limit - len(self._pending))
        while taken < room and size < BATCH_BYTES:
            message = self._consumer.poll(timeout)
            if message is None:
                break
            error = message.error()
            if error is not None:
                self._note(error)
                break
            record = record_of(message)
            self._pending.append(record)
            taken += 1
            size += len(record.value or b"")
            timeout = 0

    def _settle(self, batch: Sequence[Record]) -> None:
        try:
            self._handle(batch)
            self._note_handled()
        except Exception as error:
            if self._is_passing(error):
                raise
            if self._fuse.is_closed:
                log.exception("a batch could not be handled: its records are tried one by one", records=len(batch))
            for record, failure in self._failures(batch):
                self._write_dead_letter(record, letter_class="handler_error", cause=type(failure).__name__)
        self._commit(batch)

    def _failures(self, batch: Sequence[Record]) -> list[tuple[Record, Exception]]:
        """Handles each record alone and returns those that are at fault with their errors. FuseBlownError where the code may be."""
        failures: list[tuple[Record, Exception]] = []
        self._done = set()
        for record in batch:
            try:
                self._handle([record])
                self._note_handled()
                self._done.add((record.topic, record.partition, record.offset))
            except Exception as error:
                if self._is_passing(error):
                    raise
                failures.append((record, error))
                self._failed_in_a_row += 1
                if 0 < self._fuse_records < self._failed_in_a_row:
                    raise self._blown(failures) from error
        if failures and not self._has_handled:
            raise self._blown(failures)
        return failures

    def _note_handled(self) -> None:
        self._has_handled = True
        self._failed_in_a_row = 0

    def _blown(self, failures: Sequence[tuple[Record, Exception]]) -> FuseBlownError:
        record, error = failures[0]
        return FuseBlownError(
            f"records of {record.topic} cannot be handled and are held, {len(failures)} so far, the first at partition {record.partition} "
            f"offset {record.offset} ({type(error).__name__}): deploy a version that can; or, where the records are at fault, set "
            "CONSUMER_FUSE_RECORDS=0 until they are dead letters"
        )

    def _commit(self, batch: Sequence[Record]) -> None:
        # Asynchronously: a broker that is away must not block the loop, and what stays uncommitted is delivered again and known by its id.
        ends, self._ends = self._ends, {}
        for record in batch:
            place = record.topic, record.partition
            ends[place] = max(ends.get(place, 0), record.offset + 1)
        self._commit_ends(ends)

    def _commit_ends(self, ends: Mapping[tuple[str, int], int]) -> None:
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in ends.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
            reach(CrashPoint.OFFSETS_COMMITTED)
        except KafkaException as error:
            log.warning("offsets were not committed", error=str(error))

    def _forget_handled(self, batch: Sequence[Record]) -> None:
        """Of a batch with records that are held: what was handled is not handed over again, and committed up to the first that is held."""
        self._pending = []
        before: dict[tuple[str, int], int] = {}
        for record in batch:
            place = record.topic, record.partition
            if (*place, record.offset) not in self._done:
                self._pending.append(record)
            elif any((held.topic, held.partition) == place for held in self._pending):
                self._ends[place] = record.offset + 1
            else:
                before[place] = record.offset + 1
        if before:
            self._commit_ends(before)

    def _hold(self, error: BaseException) -> None:
        wait_seconds = self._backoff.next_wait_seconds()
        self._retry_at = self._clock() + wait_seconds
        self._pause()
        log.warning(
            "records are held", records=len(self._pending), error=str(error), wait_seconds=round(wait_seconds, 2)
        )

    def _hold_for_proof(self, error: FuseBlownError) -> None:
        self._fuse.failure(str(error))
        if self._failed_in_a_row > self._fuse_records:
            self._pause()
        elif (
            self._is_paused
        ):  # what follows is taken meanwhile: one that can be handled shows that the others are at fault
            self._is_paused = False
            self._consumer.resume(self._consumer.assignment())
        self._has_handled = False
        self._failed_in_a_row = 0

    def _pause(self) -> None:
        self._is_paused = True
        self._consumer.pause(self._consumer.assignment())

    def _resume(self, batch: list[Record]) -> None:
        self._pending = []
        self._retry_at = 0.0
        self._backoff.reset()
        self._fuse.success()
        if self._is_paused:
            self._is_paused = False
            self._consumer.resume(self._consumer.assignment())
            log.warning("records go on", records=len(batch))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._is_paused:
            # One that comes back would still be paused, and where nothing is pending nothing would resume it.
            consumer.resume(partitions)
        gone = {(partition.topic, partition.partition) for partition in partitions}
        self._pending = [record for record in self._pending if (record.topic, record.partition) not in gone]
        self._ends = {place: end for place, end in self._ends.items() if place not in gone}
        if not self._pending:
            self._fuse.success()

    def _note(self, error: KafkaError) -> None:
        if error.fatal():
            raise KafkaException(error)
        if self._clock() - self._logged_at >= LOG_EVERY_SECONDS:
            self._logged_at = self._clock()
            log.warning("kafka reported an error", error=error.str())
