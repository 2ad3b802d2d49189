"""`python3 manage_scripts/prove.py` runs this in the project's environment."""

import secrets
import shutil
import signal
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from types import FrameType

from tests.proof.document import write_matrix, write_soak
from tests.proof.options import parse
from tests.proof.run import consistency, failures, run, select
from tests.proof.soak import soak
from tests.proof.stage import Stage, stage

KEPT_LOGS = Path(__file__).resolve().parents[2] / ".proof-logs"


def end_on_signal(number: int, _frame: FrameType | None) -> None:
    for other in (signal.SIGTERM, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)  # a second one must not interrupt what the first one ends
    raise SystemExit(128 + number)  # an exception, so that every process that was started is ended on the way out


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    try:
        faults = select(full=options.full or options.list, only=options.only)
    except LookupError as error:
        print(error.args[0], file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(fault.name for fault in faults))
        return 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end_on_signal)
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="notifyx-proof-") as temporary:
        folder = options.services or Path(temporary)
        logs = folder / "logs"
        try:
            logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            print(f"--services {folder}: {error.strerror}; name a folder that this user can write to", file=sys.stderr)
            return 2
        with stage(folder / "services", logs, replicas=2 if options.soak else 1) as found:
            holds = show(found, options, seed)
        if not holds:
            shutil.rmtree(KEPT_LOGS, ignore_errors=True)
            shutil.copytree(logs, KEPT_LOGS)
            print(f"the processes' logs are kept in {KEPT_LOGS}", file=sys.stderr)
    return 0 if holds else 1


def show(found: Stage, options: Namespace, seed: int) -> bool:
    """Runs what was asked for, prints it, and writes it down where it holds and that was asked for, too."""
    began = time.monotonic()
    if options.soak:
        report = soak(found, minutes=options.soak, seed=seed)
        print(report.as_text(), flush=True)
        holds = report.holds
    else:
        rows = run(found, select(full=options.full, only=options.only), seed=seed)
        holds = not failures(rows)
    inconsistent = consistency(found)
    print(*inconsistent, sep="\n", end="\n" if inconsistent else "")
    holds = holds and not inconsistent
    minutes = (time.monotonic() - began) / 60
    print(f"{minutes:.1f} minutes, seed {seed}: {'every promise kept' if holds else 'BROKEN'}", flush=True)
    if options.write and not holds:
        print("not written: the document shows what holds", file=sys.stderr)
    elif options.write and options.soak:
        write_soak(report, seed=seed)
    elif options.write:
        write_matrix(rows, seed=seed, minutes=minutes)
    return holds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
