"""Runs faults one after the other and prints the matrix as it grows."""

import random
import sys
import time
import traceback
from collections.abc import Iterable, Sequence

from tests.proof.faults import FAULTS, Fault
from tests.proof.injections import Scene
from tests.proof.load import Load
from tests.proof.matrix import Row, row_of, text_header, text_line, total
from tests.proof.stage import Stage

CONVERGE_SECONDS = 120.0
WARM_UP = 8


def select(*, full: bool, only: Sequence[str] = ()) -> list[Fault]:
    """The faults of a run, in their order. LookupError where `only` names none: a part of a name is enough."""
    if not only:
        return [fault for fault in FAULTS if full or fault.quick]
    missing = [name for name in only if not any(name in fault.name for fault in FAULTS)]
    if missing:
        raise LookupError(
            f"--only {missing[0]!r} is in no fault's name; they are:\n  " + "\n  ".join(f.name for f in FAULTS)
        )
    return [fault for fault in FAULTS if any(name in fault.name for name in only)]


def run_fault(stage: Stage, fault: Fault, *, seed: int, number: int) -> Row:
    """One row of the matrix. What goes wrong with making the fault happen breaks the row, too: then nothing was shown."""
    chance = random.Random(f"{seed}-{fault.name}")
    letters = stage.dead_letters()
    load = Load(stage.platform, f"proof-{seed}-{number}", fault.mix_of(), chance.getrandbits(32))
    wrong: list[str] = []
    with load:
        try:
            load.wait_for_more(WARM_UP)
            fault.inject(Scene(stage=stage, load=load, chance=chance))
        except Exception as error:  # noqa: BLE001 (said in the row, and the next fault has its turn)
            traceback.print_exc(file=sys.stderr)
            wrong.append(f"not shown: {type(error).__name__}: {str(error)[:300]}")
        stage.heal()
        healed = time.monotonic()
        try:
            load.wait_for_more(WARM_UP)
        except AssertionError as error:
            wrong.append(str(error))
    stage.converge(CONVERGE_SECONDS)
    seconds = time.monotonic() - healed
    row = row_of(fault, stage, load, seconds=seconds, dead_letters=stage.dead_letters() - letters)
    return row.with_broken(wrong)


def run(stage: Stage, faults: Sequence[Fault], *, seed: int) -> list[Row]:
    """Prints each row when it is known; returns all."""
    width = max(len(fault.name) for fault in faults)
    print(text_header(width), flush=True)
    rows = []
    for number, fault in enumerate(faults):
        row = run_fault(stage, fault, seed=seed, number=number)
        rows.append(row)
        print(text_line(row, width), flush=True)
    print(text_line(total(rows), width), flush=True)
    return rows


def consistency(stage: Stage) -> list[str]:
    """What `check_consistency` finds broken in either service: nothing, or its tables."""
    found = []
    for project in ("notification_project", "email_project"):
        printed = stage.platform.manage(project, "check_consistency", check=False)
        if "BROKEN" in printed or "holds" not in printed:
            found.append(f"{project}:\n{printed}")
    return found


def failures(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if not row.holds]
