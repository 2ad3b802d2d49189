import signal
import subprocess
import sys
import timeit
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from shared_events.runtime.crash_points import CrashPoint, arm, reach

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
from shared_events.runtime.crash_points import CrashPoint, arm, reach
arm({text!r})
for n in range(3):
    reach(CrashPoint.PRODUCED)
    reach(CrashPoint.DOT_SENT)
    print(n, flush=True)
"""


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm("")


def run(text: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(text=text)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout.split()


@pytest.mark.parametrize(("text", "rounds"), [("dot_sent", []), ("dot_sent:1", []), ("dot_sent:3", ["0", "1"])])
def test_a_process_ends_at_once_when_it_comes_to_its_point_as_often_as_said(text: str, rounds: list[str]) -> None:
    assert run(text) == (-signal.SIGKILL, rounds)


@pytest.mark.parametrize("text", ["", "mail_accepted", "dot_sent:4"])
def test_a_process_goes_on_where_its_point_is_not_armed_or_not_reached_often_enough(text: str) -> None:
    assert run(text) == (0, ["0", "1", "2"])


@pytest.mark.parametrize("text", ["nowhere", "dot_sent:0", "dot_sent:x", ":2", "dot_sent:-1"])
def test_a_point_that_is_none_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(ImproperlyConfigured) as refused:
        arm(text)
    assert f"CRASH_POINT={text!r} is none: unset it" in str(refused.value)
    assert all(point in str(refused.value) for point in CrashPoint)


def test_a_point_costs_next_to_nothing_where_none_is_armed() -> None:
    arm("")
    seconds = min(timeit.repeat(lambda: reach(CrashPoint.DOT_SENT), number=10_000, repeat=5)) / 10_000
    assert seconds < 5e-6  # a few tens of nanoseconds on an idle core; a mail passes about twenty
