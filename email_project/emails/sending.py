"""Sending: threads that speak SMTP over reused connections, and one bookkeeper that claims, marks, settles and renews.

The threads touch the database for `hold` mails alone. Nothing here waits for SMTP inside a transaction, or for the database inside an
SMTP transaction (but for that one mark).
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Final
from uuid import UUID

import structlog
from django.db import close_old_connections, connection

from shared_events.outbox.claim import POISON_CRASHES, new_lease_token
from shared_events.runtime.backoff import LoopBackoff
from shared_events.runtime.breaker import CircuitBreaker
from shared_events.runtime.database import fresh_connections, is_passing

from .clock import DatabaseClock
from .delivery import Delivery, DeliveryDefectError, NotBegunError, Result
from .message import render
from .models import SentEmail
from .outcomes import EXPIRED, FOUND_MARKED, POISON, UNANSWERED_AT_STOP, Kind, Outcome, accepted, classify
from .sender_options import SenderOptions
from .settlement import DeliveryPolicy, settle
from .smtp import SmtpConnection, SmtpFault, SmtpServer

MICRO_BATCH = 32
"""So many mails are claimed and marked at once, and so many more while those are sent."""
SETTLE_BATCH = 64
SETTLE_EVERY_SECONDS = 0.02
IDLE_CONNECTION_SECONDS = 30.0
CONFIGURATION_HOLD_SECONDS = 15.0
FINAL_SETTLE_SECONDS = 10.0

log = structlog.get_logger(__name__)


_PROBE: Final = object()
_END: Final = object()


class EmailSender:
    """Owns a fencing token, the leases held under it, and `connections` SMTP threads. `ring` is called after status events were stored.

    `step()` is a round of the bookkeeper: in a thread of its own, or the loop of a command. `room()` and `accept()` are for intake.
    """

    def __init__(
        self,
        server: SmtpServer,
        policy: DeliveryPolicy,
        options: SenderOptions,
        *,
        ring: Callable[[], None],
        breaker: CircuitBreaker,
    ) -> None:
        self.token = new_lease_token()
        self.lease_seconds = options.lease_seconds
        self._server = server
        self._policy = policy
        self._options = options
        self._ring = ring
        self._breaker = breaker
        self._held: dict[UUID, Delivery] = {}
        self._ready: queue.SimpleQueue[Delivery | object] = queue.SimpleQueue()
        self._inbox: queue.SimpleQueue[Result | Exception | None] = queue.SimpleQueue()
        self._unsettled: dict[UUID, Result] = {}
        self._backoff = LoopBackoff()
        self._settle_again_at = 0.0
        self._defect: Exception | None = None
        self._more_due = True
        self._polled_at = 0.0
        self._renewed_at = time.monotonic()
        self._clock = DatabaseClock()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._speak, name=f"smtp-{n}", daemon=True) for n in range(options.connections)
        ]

    # Intake's side

    def room(self) -> int:
        """How many more mails may be handed over now: none while the server is away or this process stops."""
        if self._stopping or not self._breaker.is_closed:
            return 0
        return max(0, 2 * MICRO_BATCH - len(self._held))

    def accept(self, deliveries: Sequence[Delivery]) -> None:
        """Takes mails whose rows are committed: leased under `token`, and marked but for those with `hold`."""
        for delivery in deliveries:
            self._held[delivery.id] = delivery
            self._ready.put(delivery)

    def claim_soon(self) -> None:
        """Says that rows are due which nobody holds."""
        self._more_due = True
        self._inbox.put(None)

    # The bookkeeper's side

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def step(self, wait_seconds: float) -> int:
        """One round: settle, renew, claim. Returns how many mails it settled and claimed.

        Blocks up to `wait_seconds` for something to do.
        """
        self._clock.read()
        self._collect(min(wait_seconds, self.lease_seconds / 4))
        settled = self._settle()
        self._raise_defect()
        self._renew()
        return settled + self._claim()

    def close(self) -> None:
        """Ends orderly: what was not begun goes back, replies in flight are waited for, and what stays unanswered is uncertain.

        Blocks up to the grace period, and ten seconds more where the database is away.
        """
        self._stopping = True
        self._withdraw_ready()
        deadline = time.monotonic() + self._options.grace_seconds
        while self._held and time.monotonic() < deadline:
            self._tolerantly(lambda: self._collect_and_settle(0.1))
        self._withdraw_in_flight()
        deadline = time.monotonic() + FINAL_SETTLE_SECONDS
        while self._unsettled and time.monotonic() < deadline:
            self._tolerantly(lambda: self._collect_and_settle(0.1))
        for _ in self._threads:
            self._ready.put(_END)
        for thread in self._threads:
            thread.join(0.5)
        if self._unsettled:
            log.error("outcomes could not be written: those mails will be found uncertain", mails=len(self._unsettled))
        self._raise_defect()

    def _raise_defect(self) -> None:
        """A defect that a thread met ends the process, after what others were answered is written."""
        defect, self._defect = self._defect, None
        if defect is not None:
            raise defect

    def _tolerantly(self, step: Callable[[], None]) -> None:
        try:
            fresh_connections()
            step()
        except Exception as error:
            if not is_passing(error):
                raise
            log.warning("the database is away or busy", error=str(error))
            time.sleep(0.2)

    def _collect_and_settle(self, wait_seconds: float) -> None:
        self._collect(wait_seconds)
        self._settle()
        self._renew()

    def _result(self, delivery: Delivery, outcome: Outcome | None, *, host: str = "") -> Result:
        return Result(delivery=delivery, outcome=outcome, host=host, at=self._clock.now())

    def _collect(self, wait_seconds: float) -> None:
        """Fills `_unsettled` from the inbox: up to SETTLE_BATCH, or for SETTLE_EVERY_SECONDS, or until nothing is in flight.

        Where the database is away it waits for the next try to settle, so that the caller's loop does not spin.
        """
        timeout = wait_seconds
        if self._unsettled:
            timeout = min(wait_seconds, max(0.0, self._settle_again_at - time.monotonic()))
        deadline = 0.0
        while len(self._unsettled) < SETTLE_BATCH or time.monotonic() < self._settle_again_at:
            try:
                result = self._inbox.get(timeout=timeout) if timeout > 0 else self._inbox.get_nowait()
            except queue.Empty:
                return
            if isinstance(result, Exception):
                self._defect = result
                if isinstance(result, DeliveryDefectError):
                    self._held.pop(result.delivery.id, None)  # its lease and its count of crashes stay
                return
            if result is not None:
                self._note(result)
            deadline = deadline or time.monotonic() + SETTLE_EVERY_SECONDS
            in_flight = len(self._held) > len(self._unsettled)
            timeout = deadline - time.monotonic() if self._unsettled and in_flight else 0.0

    def _note(self, result: Result) -> None:
        known = self._unsettled.get(result.delivery.id)
        is_sent = result.outcome is not None and result.outcome.kind is Kind.SENT
        is_held = self._held.get(result.delivery.id) is result.delivery  # else it was settled, and claimed anew since
        if is_sent or (is_held and (known is None or known.outcome is not FOUND_MARKED)):
            self._unsettled[result.delivery.id] = result  # an answer that came after all replaces "unanswered"

    def _settle(self) -> int:
        if not self._unsettled or time.monotonic() < self._settle_again_at:
            return 0
        try:
            lost = settle(list(self._unsettled.values()), self.token, self._policy)
        except Exception as error:
            if not is_passing(error):
                raise
            # A 250 is a fact: it is tried again until it is written.
            self._settle_again_at = time.monotonic() + self._backoff.next_wait_seconds()
            raise
        self._backoff.reset()
        self._settle_again_at = 0.0
        settled = list(self._unsettled.values())
        self._unsettled = {}
        for result in settled:
            self._held.pop(result.delivery.id, None)
        if any(result.outcome is not None for result in settled):
            self._ring()
        log.info(
            "mails settled",
            mails=len(settled),
            sent=sum(r.outcome is not None and r.outcome.kind is Kind.SENT for r in settled),
            lost=lost,
        )
        return len(settled)

    def _renew(self) -> None:
        began_at = time.monotonic()
        if not self._held or began_at - self._renewed_at < self.lease_seconds / 3:
            return
        deliveries = list(self._held.values())
        ids = [delivery.id for delivery in deliveries]
        renewed = SentEmail.objects.held_by(self.token, ids).renew(self.lease_seconds)
        if renewed != len(ids):
            still = set(SentEmail.objects.held_by(self.token, ids).values_list("pk", flat=True))
            log.warning("lease lost", rows=len(ids) - renewed)
            deliveries = [delivery for delivery in deliveries if delivery.id in still]
        for delivery in deliveries:
            delivery.leased_until = began_at + self.lease_seconds
        self._renewed_at = began_at

    def _claim(self) -> int:
        if self._stopping or not self._circuit_allows() or len(self._held) > MICRO_BATCH:
            return 0
        poll_seconds = self._options.poll_seconds
        due = self._more_due or (poll_seconds is not None and time.monotonic() - self._polled_at >= poll_seconds)
        if not due:
            return 0
        leased_until = time.monotonic() + self.lease_seconds
        rows = SentEmail.claim(batch=MICRO_BATCH, lease_seconds=self.lease_seconds, token=self.token)
        self._more_due = len(rows) == MICRO_BATCH
        self._polled_at = time.monotonic()
        for row in rows:
            self._take(Delivery.of_row(row, leased_until=leased_until))
        return len(rows)

    def _take(self, delivery: Delivery) -> None:
        own = self._held.get(delivery.id)
        if own is not None:  # our own lease had run out: it goes on, from where others left the row meanwhile
            own.take_over(delivery)
            if delivery.found_marked and delivery.on_uncertain == SentEmail.OnUncertain.HOLD and own.withdraw():
                self._note(self._result(own, FOUND_MARKED))  # another one's mark: it may be sent
            return
        self._held[delivery.id] = delivery
        if delivery.found_marked:
            self._note(self._result(delivery, FOUND_MARKED))
        elif delivery.crashes >= POISON_CRASHES:
            self._note(self._result(delivery, POISON))
        else:
            self._ready.put(delivery)

    def _circuit_allows(self) -> bool:
        if self._breaker.is_closed:
            return True
        self._withdraw_ready()
        if self._breaker.allow():
            self._ready.put(_PROBE)
        return False

    def _withdraw_ready(self) -> None:
        """Takes back what no thread has begun. A probe stays: its circuit waits for its word, and nobody else would ask."""
        probes = 0
        while True:
            try:
                work = self._ready.get_nowait()
            except queue.Empty:
                break
            if isinstance(work, Delivery):
                self._note(self._result(work, None))
            probes += work is _PROBE
        if probes:
            self._ready.put(_PROBE)

    def _withdraw_in_flight(self) -> None:
        for delivery in list(self._held.values()):
            if delivery.id in self._unsettled:
                continue
            outcome = None if delivery.withdraw() else UNANSWERED_AT_STOP
            self._note(self._result(delivery, outcome, host=self._server.host))

    # The threads' side

    def _speak(self) -> None:
        try:
            with closing(SmtpConnection(self._server)) as smtp:
                self._speak_until_end(smtp)
        except Exception as error:  # noqa: BLE001 (the bookkeeper raises it: a defect ends the process)
            self._inbox.put(error)
        finally:
            connection.close()  # this thread's own

    def _speak_until_end(self, smtp: SmtpConnection) -> None:
        while True:
            try:
                work = self._ready.get(timeout=IDLE_CONNECTION_SECONDS)
            except queue.Empty:
                smtp.close()
                close_old_connections()
                continue
            if work is _END:
                return
            if isinstance(work, Delivery):
                self._inbox.put(self._result(work, self._deliver_surely(smtp, work), host=self._server.host))
            else:
                self._probe(smtp)

    def _probe(self, smtp: SmtpConnection) -> None:
        try:
            smtp.close()
            smtp.connect()
        except SmtpFault as fault:
            self._judge(classify(fault))
        else:
            self._breaker.success()
            self._more_due = True
        self._inbox.put(None)

    def _deliver_surely(self, smtp: SmtpConnection, delivery: Delivery) -> Outcome | None:
        try:
            return self._deliver(smtp, delivery)
        except Exception as error:
            raise DeliveryDefectError(delivery) from error

    def _deliver(self, smtp: SmtpConnection, delivery: Delivery) -> Outcome | None:
        if not self._breaker.is_closed or self._stopping:
            return None
        try:
            mail = render(delivery.as_mail())
        except ValueError as error:
            log.error("mail cannot be rendered", notification_id=str(delivery.id), error=type(error).__name__)
            return POISON
        try:
            if not smtp.is_open:
                smtp.connect()
            outcome = accepted(smtp.send(mail, before_data=lambda: self._before_data(delivery)))
        except SmtpFault as fault:
            outcome = classify(fault)
        except NotBegunError as refusal:
            return refusal.outcome
        self._judge(outcome)
        return outcome

    def _before_data(self, delivery: Delivery) -> None:
        """The last check before DATA: the lease, the deadline, an orderly stop; and the mark of a `hold` mail."""
        if delivery.send_before is not None and delivery.send_before <= self._clock.now():
            raise NotBegunError(EXPIRED)
        if delivery.on_uncertain == SentEmail.OnUncertain.HOLD and not self._mark(delivery):
            raise NotBegunError(None)
        with delivery.gate:
            if delivery.withdrawn or time.monotonic() >= delivery.leased_until:
                raise NotBegunError(None)
            delivery.in_data = True

    def _mark(self, delivery: Delivery) -> bool:
        try:
            fresh_connections()
            return bool(SentEmail.objects.held_by(self.token, [delivery.id]).mark())
        except Exception as error:
            if not is_passing(error):
                raise
            log.warning("the database is away or busy", error=str(error))
            return False

    def _judge(self, outcome: Outcome) -> None:
        reason = f"{outcome.phase}: {outcome.code}"  # the words of a server may hold an address
        if outcome.kind is Kind.DEPENDENCY:
            self._breaker.failure(reason)
        elif outcome.kind is Kind.CONFIGURATION:
            self._breaker.failure(reason, hold_seconds=CONFIGURATION_HOLD_SECONDS)
