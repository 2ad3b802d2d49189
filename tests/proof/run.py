"""Runs faults one after the other and prints the matrix as it grows."""

import random
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence

from tests.proof.faults import FAULTS, Fault
from tests.proof.injections import Scene
from tests.proof.load import Load
from tests.proof.matrix import Row, nothing_known, row_of, text_header, text_line, total
from tests.proof.stage import Stage

CONVERGE_SECONDS = 120.0
WARM_UP = 8
NOTICED_SECONDS = 3.0


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
    letters, mails = stage.dead_letters(), stage.mails()
    load = Load(stage.platform, f"proof-{seed}-{number}", fault.mix_of(), chance.getrandbits(32))
    with load:
        load.wait_for_more(WARM_UP)
        wrong = list(happen(fault, Scene(stage=stage, load=load, chance=chance)))
        healed = time.monotonic()
        load.wait_for_more(WARM_UP, CONVERGE_SECONDS)
    if not stage.converge(CONVERGE_SECONDS):
        wrong.append(f"not all was done {CONVERGE_SECONDS:g} s later, with {stage.platform.lag()} records unread")
    row = row_of(
        fault,
        stage,
        load,
        before=mails,
        seconds=time.monotonic() - healed,
        dead_letters=stage.dead_letters() - letters,
    )
    return row.with_broken(wrong)


def happen(fault: Fault, scene: Scene) -> Iterator[str]:
    """Makes a fault happen, mends it, and says what was wrong with that."""
    load, stage = scene.load, scene.stage
    accepted, began = len(load.accepted), time.monotonic()
    try:
        fault.inject(scene)
    except Exception as error:  # noqa: BLE001 (said in the row, and the next fault has its turn)
        traceback.print_exc(file=sys.stderr)
        yield f"not shown: {type(error).__name__}: {str(error)[:300]}"
    else:
        if not fault.api_away and time.monotonic() - began > NOTICED_SECONDS and len(load.accepted) == accepted:
            yield "nothing was accepted meanwhile"
    refusals = sum(refused_at >= began for refused_at in load.refusals)
    if not fault.api_away and refusals:
        yield f"the API refused {refusals} times in a fault that is none of its own"
    stage.heal()
    yield from stage.died
    stage.died.clear()


def run(stage: Stage, faults: Sequence[Fault], *, seed: int) -> list[Row]:
    """Prints each row when it is known; returns all."""
    width = max(len(fault.name) for fault in faults)
    print(text_header(width), flush=True)
    rows = []
    for number, fault in enumerate(faults):
        try:
            row = run_fault(stage, fault, seed=seed, number=number)
        except AssertionError as error:
            row = nothing_known(fault).with_broken([f"not seen to its end: {str(error)[:300]}"])
            stage.heal()
        rows.append(row)
        print(text_line(row, width), flush=True)
    print(text_line(total(rows), width), flush=True)
    return rows


def consistency(stage: Stage) -> list[str]:
    """What `check_consistency` finds broken in either service: nothing, or its tables."""
    found = []
    for project, service in (("notification_project", "notification_migrate"), ("email_project", "email_migrate")):
        command = ["python", f"{project}/manage.py", "check_consistency"]
        done = stage.platform.completed(command, stage.platform.environment(service))
        if done.returncode:
            found.append(f"{project}:\n{done.stdout}{done.stderr}")
    return found


def failures(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if not row.holds]
