"""The loop around every long-running command."""

import time
from collections.abc import Callable

import structlog

from .backoff import LoopBackoff
from .database import fresh_connections, is_passing
from .liveness import Liveness
from .stop import StopSignal

SMALL_STEP = 50
PACE_SECONDS = 0.01

log = structlog.get_logger(__name__)


def run_until_stopped(
    step: Callable[[], int],
    *,
    idle: Callable[[], None],
    stop: StopSignal,
    liveness: Liveness,
    pace_seconds: float = 0.0,
    report: Callable[[], None] = lambda: None,
) -> None:
    """Calls `step` until `stop` was received, and `idle` (which may block) after each step that did nothing (returned 0).

    After a small step there is a pause of `pace_seconds`, so that under a steady trickle a round takes several rows instead of one.
    `report` is called in each round, before `step`. An error of the database that waiting can mend is waited out with back-off; any
    other ends the process.
    """
    backoff = LoopBackoff()
    while not stop.received:
        liveness.touch()
        fresh_connections()
        try:
            report()
            done = step()
        except Exception as error:
            if not is_passing(error):
                raise
            wait_seconds = backoff.next_wait_seconds()
            log.warning("the database is away or busy", error=str(error), wait_seconds=round(wait_seconds, 2))
            stop.wait(wait_seconds)
            continue
        backoff.reset()
        if not done:
            idle()
        elif done < SMALL_STEP and pace_seconds:
            time.sleep(pace_seconds)
