"""Waits stay within their bounds, whatever the numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_events.runtime.backoff import LoopBackoff, row_wait_seconds

BASES = st.floats(min_value=0, max_value=1e4)


@pytest.mark.fault(43)
@given(n=st.integers(1, 10**9), base=BASES, maximum=BASES)
def test_a_row_waits_between_half_and_whole_of_its_wait(n: int, base: float, maximum: float) -> None:
    whole = min(maximum, base * 3.0 ** min(n - 1, 40))
    wait = row_wait_seconds(n, base_seconds=base, maximum_seconds=maximum)
    assert whole / 2 <= wait <= whole


def test_the_waits_of_a_row_triple() -> None:
    longest = [max(row_wait_seconds(n, base_seconds=5, maximum_seconds=3600) for _ in range(200)) for n in range(1, 8)]
    for n, wait in enumerate(longest, start=1):
        whole = min(3600, 5 * 3 ** (n - 1))
        assert whole * 0.8 < wait <= whole


@pytest.mark.fault(48)
def test_rows_that_failed_together_are_spread() -> None:
    waits = {row_wait_seconds(3, base_seconds=5, maximum_seconds=3600) for _ in range(50)}
    assert max(waits) - min(waits) > 5


@given(failures=st.integers(1, 3000))
def test_a_loop_waits_at_most_its_maximum(failures: int) -> None:
    backoff = LoopBackoff(base_seconds=0.2, maximum_seconds=5)
    for n in range(1, failures + 1):
        assert 0 <= backoff.next_wait_seconds() <= min(5, 0.2 * 2.0 ** min(n, 30))


def test_a_loop_that_recovered_begins_with_short_waits_again() -> None:
    backoff = LoopBackoff(base_seconds=0.001, maximum_seconds=1000)
    grown = max(backoff.next_wait_seconds() for _ in range(25))
    assert grown > 1
    backoff.reset()
    assert backoff.next_wait_seconds() <= 0.002
