"""A worker's row in `process_state`."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import structlog
from django.db import DatabaseError, InterfaceError
from django.db.models.functions import Now
from django.utils import timezone

from .breaker import CircuitBreaker
from .models import FRESH_SECONDS, ProcessState

WRITE_EVERY_SECONDS = 10.0
FORGET_AFTER = timedelta(days=1)

log = structlog.get_logger(__name__)


class WorkersRunError(Exception):
    """Something is to be done that no worker may run beside."""


class StateReport:
    """`write()` stores the open circuits of this process where they changed, and every ten seconds.

    It is a status page and not the work: where the database is away it does nothing for the next ten seconds.
    """

    def __init__(
        self, command: str, circuits: Sequence[CircuitBreaker], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._id = f"{socket.gethostname()[:100]}:{os.getpid()}:{command}"
        self._command = command
        self._circuits = circuits
        self._clock = clock
        self._started_at = timezone.now()
        self._written_at = -WRITE_EVERY_SECONDS
        self._written: list[dict[str, Any]] = []
        self._failed_at = -WRITE_EVERY_SECONDS

    def write(self) -> None:
        now = self._clock()
        found = [circuit.as_dict() for circuit in self._circuits if not circuit.is_closed]
        if now - self._failed_at < WRITE_EVERY_SECONDS:
            return
        if found == self._written and now - self._written_at < WRITE_EVERY_SECONDS:
            return
        try:
            self._store(found)
        except (DatabaseError, InterfaceError) as error:
            log.warning("the state of this process could not be written", error=str(error))
            self._failed_at = now
        else:
            self._written, self._written_at = found, now

    def _store(self, found: list[dict[str, Any]]) -> None:
        values = {"open_circuits": found, "updated_at": Now()}
        if not ProcessState.objects.filter(pk=self._id).update(**values):
            ProcessState.objects.filter(updated_at__lt=Now() - FORGET_AFTER).delete()
            ProcessState.objects.bulk_create(
                [ProcessState(id=self._id, command=self._command, started_at=self._started_at, **values)]
            )

    def end(self) -> None:
        """Removes the row at an orderly end. Where the database is away it stays, and is forgotten after a day."""
        with contextlib.suppress(DatabaseError, InterfaceError):
            ProcessState.objects.filter(pk=self._id).delete()


def refuse_beside_workers() -> None:
    """Raises WorkersRunError where a worker of this database wrote its row within the last minute."""
    alive = list(ProcessState.objects.alive().order_by("pk").values_list("pk", flat=True))
    if alive:
        raise WorkersRunError(
            f"workers wrote to process_state within the last {FRESH_SECONDS} seconds: {', '.join(alive)}. Stop them all and run this "
            f"again; what was killed, or is in the backup itself, counts as running for {FRESH_SECONDS} seconds"
        )
