"""The proof's own judgement: what a row must say to hold, which faults a run has, and what is written of it."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from shared_events.runtime.crash_points import CrashPoint
from tests.proof import document
from tests.proof.faults import FAULTS, Fault
from tests.proof.load import Load, Mix
from tests.proof.matrix import Row, as_markdown, row_of, total
from tests.proof.run import select
from tests.proof.soak import Memory, candidates, ends_the_api, resident_mebibytes

ROOT = Path(__file__).resolve().parents[2]
NONE = Fault(name="none", inject=lambda _scene: None)


def looked_at(
    rows: dict[str, tuple[str, int]],
    mails: dict[str, int],
    *,
    held: tuple[str, ...] = (),
    accepted: tuple[str, ...] | None = None,
    recipient: str = "a@example.com",
    unanswered: tuple[str, ...] = (),
    open_rows: dict[str, int] | None = None,
    dead_letters: int = 0,
) -> Row:
    """The row of a load whose notifications are `rows` (status, possible duplicates), of which `mails` arrived."""
    ids = {name: str(uuid4()) for name in [*rows, *mails, *held, *(accepted or ())]}
    found = [(UUID(ids[name]).hex, status, copies, recipient) for name, (status, copies) in rows.items()]
    stage: Any = SimpleNamespace(
        platform=SimpleNamespace(sql=lambda *_: found),
        mails=lambda: Counter({ids[name]: n for name, n in mails.items()}),
        open_by_table=lambda: open_rows or {},
    )
    load = Load(stage.platform, "reference", Mix(), 1)
    load.accepted = [ids[name] for name in (rows if accepted is None else accepted)]
    load.held = {ids[name] for name in held}
    load.unanswered = list(unanswered)
    return row_of(NONE, stage, load, seconds=1.25, dead_letters=dead_letters)


def test_a_row_holds_where_each_was_sent_once_or_its_copy_announced_or_it_is_held() -> None:
    row = looked_at({"a": ("SENT", 0), "b": ("SENT", 1), "c": ("UNCERTAIN", 0)}, {"a": 1, "b": 2, "c": 1}, held=("c",))
    assert row.holds, row.broken
    assert (row.accepted, row.sent, row.uncertain, row.extra_copies, row.announced) == (3, 2, 1, 1, 1)


@pytest.mark.parametrize(
    ("words", "rows", "mails", "also"),
    [
        ("accepted and not stored", {"a": ("SENT", 0)}, {"a": 1}, {"accepted": ("a", "b")}),
        ("stored and never accepted", {"a": ("SENT", 0), "b": ("SENT", 0)}, {"a": 1, "b": 1}, {"accepted": ("a",)}),
        ("SENT and no mail", {"a": ("SENT", 0)}, {}, {}),
        ("FAILED and nobody refused it", {"a": ("FAILED", 0)}, {}, {}),
        ("copies that are not announced", {"a": ("SENT", 0)}, {"a": 2}, {}),
        ("copies that are not announced", {"a": ("SENT", 1)}, {"a": 3}, {}),
        ("held mails that were sent again", {"a": ("SENT", 1)}, {"a": 2}, {"held": ("a",)}),
        ("left open", {"a": ("PENDING", 0)}, {}, {}),
        ("requests that were never accepted", {"a": ("SENT", 0)}, {"a": 1}, {"unanswered": ("POST",)}),
        ("rows left to do", {"a": ("SENT", 0)}, {"a": 1}, {"open_rows": {"sent_emails": 1}}),
        ("3 dead letters of an outage", {"a": ("SENT", 0)}, {"a": 1}, {"dead_letters": 3}),
        ("nothing was accepted", {}, {}, {}),
    ],
)
def test_a_row_is_broken_where_a_promise_is(
    words: str, rows: dict[str, tuple[str, int]], mails: dict[str, int], also: dict[str, Any]
) -> None:
    row = looked_at(rows, mails, **also)
    assert not row.holds
    assert [sentence for sentence in row.broken if words in sentence], row.broken


def test_what_a_server_refused_for_good_is_failed_and_not_lost() -> None:
    row = looked_at({"a": ("FAILED", 0)}, {}, recipient="refused-1@example.com")
    assert row.holds, row.broken
    assert (row.failed, row.lost) == (1, 0)


def test_every_fault_has_its_own_name_and_every_crash_point_is_met_by_one() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)
    assert len(names) > 40
    unmet = {point for point in CrashPoint if not any(name.endswith(f" at {point}") for name in names)}
    assert not unmet


def test_a_run_has_the_faults_that_were_asked_for() -> None:
    assert select(full=True) == list(FAULTS)
    assert 15 <= len(select(full=False)) <= 25
    assert {fault.name for fault in select(full=False, only=["redis frozen", "none"])} == {"redis frozen", "none"}
    with pytest.raises(LookupError, match="--only 'nowhere' is in no fault's name"):
        select(full=False, only=["nowhere"])


def test_the_api_is_not_ended_any_more_once_its_memory_is_watched() -> None:
    assert any(map(ends_the_api, candidates(0.0)))
    assert not any(map(ends_the_api, candidates(0.5)))


def test_memory_that_grew_is_told_and_a_process_is_measured_with_its_children() -> None:
    assert Memory("api", 0, settled=100, last=130).growth == pytest.approx(0.3)
    child = subprocess.Popen([sys.executable, "-c", "x = bytearray(60_000_000); input()"], stdin=subprocess.PIPE)
    try:
        assert child.stdin
        while resident_mebibytes(child.pid) < 60:
            assert child.poll() is None
    finally:
        child.kill()
        child.communicate()


def test_the_matrix_is_written_between_its_markers_and_nothing_else_changes() -> None:
    row = looked_at({"a": ("SENT", 0)}, {"a": 1})
    text = "head\n<!-- matrix:begin -->\nold\n<!-- matrix:end -->\ntail\n"
    written = document.between(text, "matrix", as_markdown([row]))
    assert written.startswith("head\n<!-- matrix:begin -->\n\n| fault | accepted |")
    assert written.endswith("<!-- matrix:end -->\ntail\n")
    assert "old" not in written
    assert "| none | 1 | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 1.2 |" in written
    with pytest.raises(LookupError, match="has no <!-- soak:begin -->"):
        document.between(text, "soak", "x")


def test_the_total_sums_up_and_tells_the_slowest() -> None:
    row = looked_at({"a": ("SENT", 1)}, {"a": 2})
    summary = total([row, row])
    assert (summary.fault, summary.accepted, summary.extra_copies, summary.seconds) == ("2 faults", 2, 2, 1.2)


def run_prove(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.proof", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_lists_its_faults_and_refuses_a_name_that_is_none() -> None:
    assert run_prove("--list").stdout.splitlines() == [fault.name for fault in FAULTS]
    refused = run_prove("--only", "nowhere")
    assert refused.returncode == 2
    assert refused.stderr.startswith("--only 'nowhere' is in no fault's name; they are:\n  none\n")
