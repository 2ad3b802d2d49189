"""The loop around each worker."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import OperationalError, ProgrammingError

from shared_events.runtime import loop
from shared_events.runtime.liveness import Liveness
from shared_events.runtime.stop import StopSignal


@pytest.fixture(autouse=True)
def _no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "fresh_connections", lambda: None)


class WaitingStop(StopSignal):
    """Notes what is waited for instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, seconds: float, *, each_slice: Callable[[], None] = lambda: None) -> None:
        self.waits.append(seconds)


def run(stop: StopSignal, steps: list[int | Exception], idle: Callable[[], None] = lambda: None) -> int:
    """Runs the steps and stops with the last one; returns how many were taken."""
    taken = 0

    def step() -> int:
        nonlocal taken
        result = steps[taken]
        taken += 1
        stop.received = taken == len(steps)
        if isinstance(result, Exception):
            raise result
        return result

    loop.run_until_stopped(step, idle=idle, stop=stop, liveness=Liveness(""))
    return taken


def test_a_step_that_did_something_is_followed_by_the_next_at_once() -> None:
    idled: list[int] = []
    assert run(WaitingStop(), [500, 500, 0, 3], idle=lambda: idled.append(1)) == 4
    assert idled == [1]


def test_no_step_is_taken_after_a_stop() -> None:
    stop = WaitingStop()
    stop.received = True
    assert run(stop, []) == 0


def test_a_passing_error_is_waited_out() -> None:
    stop = WaitingStop()
    away = OperationalError(2006, "Server has gone away")
    assert run(stop, [away, away, OperationalError("database is locked"), 1, 1]) == 5
    assert len(stop.waits) == 3
    assert all(0 <= wait <= 5 for wait in stop.waits)


def test_any_other_error_ends_the_loop() -> None:
    stop = WaitingStop()
    with pytest.raises(ProgrammingError):
        run(stop, [1, ProgrammingError(1146, "no such table"), 1])
    assert not stop.waits


def test_each_cycle_touches_the_liveness_file(tmp_path: Path) -> None:
    stop = StopSignal()
    path = tmp_path / "alive"
    seen: list[bool] = []

    def step() -> int:
        seen.append(path.exists())
        stop.received = True
        return 1

    loop.run_until_stopped(step, idle=lambda: None, stop=stop, liveness=Liveness(str(path)))
    assert seen == [True]
    assert time.time() - path.stat().st_mtime < 60
