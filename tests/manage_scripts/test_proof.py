"""The proof's own judgement: what a row must say to hold, which faults a run has, and what is written of it."""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from shared_events.runtime.crash_points import CrashPoint
from tests.end_to_end.platform import Answer
from tests.proof import document, injections
from tests.proof.faults import FAULTS, Fault
from tests.proof.injections import Scene
from tests.proof.load import Load, Mix
from tests.proof.matrix import Row, as_markdown, row_of, total
from tests.proof.options import parse
from tests.proof.run import happen, select
from tests.proof.soak import Memory, draw, ends_the_api, resident_mebibytes
from tests.proof.stage import Stage
from tests.smtp_servers import ReceivedMail

ROOT = Path(__file__).resolve().parents[2]
BEFORE = time.monotonic()
OUTAGE = Fault(name="an outage", inject=lambda _scene: None)


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
    before: dict[str, int] | None = None,
    fault: Fault = OUTAGE,
) -> Row:
    """The row of a load whose notifications are `rows` (status, possible duplicates), of which `mails` arrived."""
    ids = {name: str(uuid4()) for name in [*rows, *mails, *held, *(accepted or ()), *(before or {})]}
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
    known = {ids[name]: n for name, n in (before or {}).items()}
    return row_of(fault, stage, load, before=known, seconds=1.25, dead_letters=dead_letters)


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
        ("3 dead letters where 0 are right", {"a": ("SENT", 0)}, {"a": 1}, {"dead_letters": 3}),
        ("in none of the states", {"a": ("CANCELLED", 0)}, {}, {}),
        ("FAILED and it arrived", {"a": ("FAILED", 0)}, {"a": 1}, {}),
        ("UNCERTAIN though it was to be sent again", {"a": ("UNCERTAIN", 0)}, {}, {}),
        ("mails of none of these", {"a": ("SENT", 0)}, {"a": 1, "old": 2}, {"before": {"old": 1}}),
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
    fault = Fault(name="550", inject=lambda _scene: None, mix=Mix(refused=0.5), dead_letters="failed")
    row = looked_at({"a": ("FAILED", 0)}, {}, recipient="refused-1@example.com", fault=fault, dead_letters=1)
    assert row.holds, row.broken
    assert (row.failed, row.lost) == (1, 0)
    assert not looked_at({"a": ("FAILED", 0)}, {}, recipient="refused-1@example.com", fault=fault).holds


@pytest.mark.parametrize(
    ("fault", "dead_letters", "rows"),
    [
        (Fault(name="unreadable", inject=lambda _scene: None, dead_letters=16), 15, {"a": ("SENT", 0)}),
        (Fault(name="replayed", inject=lambda _scene: None, dead_letters="replayed"), 0, {"a": ("SENT", 0)}),
        (Fault(name="replayed", inject=lambda _scene: None, dead_letters="replayed"), 3, {"a": ("FAILED", 0)}),
        (Fault(name="none", inject=injections.nothing), 0, {"a": ("SENT", 1)}),
    ],
)
def test_a_fault_that_left_other_traces_than_it_must_is_broken(
    fault: Fault, dead_letters: int, rows: dict[str, tuple[str, int]]
) -> None:
    assert not looked_at(rows, {"a": 1}, fault=fault, dead_letters=dead_letters).holds


def test_mails_that_came_before_or_were_refused_after_the_final_dot_are_not_counted_as_new() -> None:
    assert looked_at({"a": ("SENT", 0)}, {"a": 1, "old": 1}, before={"old": 1}).holds
    accepted, silent, refused = (
        ReceivedMail(
            number=n,
            connection=1,
            at=0,
            envelope_from="",
            envelope_to=[],
            data=f"Message-ID: <{n}@x>\r\n".encode(),
            refused=n == 3,
        )
        for n in (1, 2, 3)
    )
    platform: Any = SimpleNamespace()
    scripted: Any = SimpleNamespace(received=[accepted, silent, refused])
    proxy: Any = None
    stage = Stage(platform, proxy, proxy, proxy, proxy, scripted)
    stage._sink = SimpleNamespace(read_new=lambda: ["<4@x>", "<4@x>"])  # type: ignore[assignment]
    assert stage.mails() == {"1": 1, "2": 1, "4": 2}


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
    chance = random.Random(1)
    assert any(ends_the_api(draw(chance, 0.0)) for _ in range(300))
    assert not any(ends_the_api(draw(chance, 0.5)) for _ in range(300))


def test_what_a_soak_draws_is_told_by_its_seed_alone() -> None:
    assert [draw(random.Random(7), 0.0).name for _ in range(20)] == [
        draw(random.Random(7), 0.0).name for _ in range(20)
    ]


class FakeStage:
    """A stage on which nothing runs."""

    def __init__(self) -> None:
        self.died: list[str] = []
        self.healed = 0

    def heal(self) -> None:
        self.healed += 1


def happened(inject: Callable[[Scene], None], *, api_away: bool = False, died: tuple[str, ...] = ()) -> list[str]:
    stage = FakeStage()
    stage.died += died
    load = Load(SimpleNamespace(), "reference", Mix(), 1)  # type: ignore[arg-type]
    scene = Scene(stage=stage, load=load, chance=random.Random(1))  # type: ignore[arg-type]
    found = list(happen(Fault(name="x", inject=inject, api_away=api_away), scene))
    assert (stage.healed, stage.died) == (1, [])
    return found


def refuse_twice(scene: Scene) -> None:
    scene.load.refusals += [time.monotonic()] * 2


def refuse_what_was_refused_before(scene: Scene) -> None:
    scene.load.refusals += [BEFORE] * 2


def fail(_scene: Scene) -> None:
    raise AssertionError("no connection was open")


def test_a_fault_that_could_not_be_made_or_ended_what_it_must_not_breaks_its_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert happened(lambda _scene: None) == []
    assert happened(fail) == ["not shown: AssertionError: no connection was open"]
    assert happened(refuse_twice) == ["the API refused 2 times in a fault that is none of its own"]
    assert happened(refuse_twice, api_away=True) == []
    assert happened(refuse_what_was_refused_before) == []
    assert happened(lambda _scene: None, died=("retry_emails ended with 1",)) == ["retry_emails ended with 1"]


def test_refusals_of_one_request_bear_the_time_of_its_first() -> None:
    left = [409, 503, 202, 409, 202]

    def request(_method: str, _path: str, body: dict[str, list[Any]], **_options: Any) -> Answer:
        accepted = {"notifications": [{"id": uuid4()} for _ in body["notifications"]]}
        return Answer(left.pop(0), {}, json.dumps(accepted, default=str).encode())

    load = Load(SimpleNamespace(request=request), "reference", Mix(), 1)  # type: ignore[arg-type]
    load.burst(4, size=2)
    assert not left
    assert len(load.accepted) == 4
    first, again, other = load.refusals
    assert first == again < other


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "x", "--write"], "--write goes with --full or --soak"),
        (["--soak", "0"], "--soak 0: give minutes above 0"),
        (["--soak", "10081"], "give minutes above 0, and 10,080 (a week) at most"),
        (["--soak", "-1"], "--soak -1: give minutes above 0"),
        (["--full", "--quick"], "not allowed with argument"),
    ],
)
def test_the_command_refuses_what_contradicts_itself(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(arguments)
    assert words in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_is_told_in_one_sentence() -> None:
    command = [sys.executable, "-m", "tests.proof", "--quick", "--services", "/dev/null/x"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "--services /dev/null/x: Not a directory; name a folder that this user can write to\n"


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
    assert "| an outage | 1 | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 1.2 |" in written
    with pytest.raises(LookupError, match="has no <!-- soak:begin -->"):
        document.between(text, "soak", "x")


def test_the_total_sums_up_and_tells_the_slowest() -> None:
    row = looked_at({"a": ("SENT", 1)}, {"a": 2})
    summary = total([row, row])
    assert (summary.fault, summary.accepted, summary.extra_copies, summary.seconds) == ("all 2 rows", 2, 2, 1.2)
    assert as_markdown([row, row]).endswith(
        "| **all 2 rows** | **2** | **2** | **0** | **0** | **2** | **2** | **0** | **0** | **1.2** |"
    )
    assert "all 1 rows" not in as_markdown([row])


def run_prove(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.proof", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_lists_its_faults_and_refuses_a_name_that_is_none() -> None:
    assert run_prove("--list").stdout.splitlines() == [fault.name for fault in FAULTS]
    refused = run_prove("--only", "nowhere")
    assert refused.returncode == 2
    assert refused.stderr.startswith("--only 'nowhere' is in no fault's name; they are:\n  none\n")
