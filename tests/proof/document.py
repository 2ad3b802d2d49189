"""Writes what a proof showed into docs/guarantees.md, between its markers."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.proof.matrix import Row, as_markdown
from tests.proof.soak import SoakReport

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "guarantees.md"


def between(text: str, name: str, content: str) -> str:
    """`text` with `content` between <!-- name:begin --> and <!-- name:end -->. LookupError where they are missing."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    head, found, rest = text.partition(begin)
    _, also_found, tail = rest.partition(end)
    if not (found and also_found):
        raise LookupError(f"{DOCUMENT.name} has no {begin} … {end}: put them where the figures belong")
    return f"{head}{begin}\n\n{content}\n\n{end}{tail}"


def write_matrix(rows: Sequence[Row], *, seed: int, minutes: float) -> None:
    made = (
        f"Made on {today()} by `python3 manage_scripts/prove.py --full --write`, seed {seed}, in {minutes:.0f} minutes:"
    )
    _write("matrix", f"{made}\n\n{as_markdown(rows)}")


def write_soak(report: SoakReport, *, seed: int) -> None:
    made = f"Made on {today()} by `python3 manage_scripts/prove.py --soak {report.minutes:g} --write`, seed {seed}:"
    memory = "\n".join(["```", *report.memory_lines(), "```"])
    drawn = ", ".join(f"{name} ({count})" for name, count in report.drawn.most_common())
    _write("soak", f"{made}\n\n{as_markdown([report.row])}\n\n{memory}\n\nFaults drawn: {drawn}.")


def _write(name: str, content: str) -> None:
    DOCUMENT.write_text(between(DOCUMENT.read_text(), name, content))


def today() -> str:
    return datetime.now(UTC).date().isoformat()
