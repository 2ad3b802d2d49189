"""`python3 manage_scripts/prove.py` runs this in the project's environment."""

import argparse
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from tests.proof.document import write_matrix, write_soak
from tests.proof.run import consistency, failures, run, select
from tests.proof.soak import soak
from tests.proof.stage import stage


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="prove.py",
        description="Shows what NotifyX promises: starts real services and every process, makes one fault happen after the other "
        "while a load runs, and prints what came of each notification. Exit code 0 only if every row keeps every promise.",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--quick", action="store_true", help="a choice of faults, a few minutes (the default)")
    choice.add_argument("--full", action="store_true", help="every fault, about half an hour")
    choice.add_argument(
        "--soak", type=float, metavar="MINUTES", help="a mixed load with faults drawn by chance, and memory"
    )
    choice.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="faults with this in their names; may be repeated"
    )
    choice.add_argument("--list", action="store_true", help="print the faults' names")
    parser.add_argument("--seed", type=int, help="repeats a run's choices by chance; the run prints its own")
    parser.add_argument(
        "--write", action="store_true", help="put the matrix, or the soak's figures, into docs/guarantees.md"
    )
    parser.add_argument(
        "--services", type=Path, metavar="DIR", help="a folder for the services and logs (else a temporary one)"
    )
    return parser.parse_args(arguments)  # fmt: skip


def end_on_signal(number: int, _frame: FrameType | None) -> None:
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
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="notifyx-proof-") as temporary:
        folder = options.services or Path(temporary)
        logs = folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with stage(folder / "services", logs, replicas=2 if options.soak else 1) as found:
            if options.soak:
                report = soak(found, minutes=options.soak, seed=seed)
                print(report.as_text(), flush=True)
                holds = report.holds
            else:
                rows = run(found, faults, seed=seed)
                holds = not failures(rows)
            inconsistent = consistency(found)
    print(*inconsistent, sep="\n")
    minutes = (time.monotonic() - began) / 60
    print(f"{minutes:.1f} minutes, seed {seed}: {'every promise kept' if holds and not inconsistent else 'BROKEN'}")
    if options.write and options.soak:
        write_soak(report, seed=seed)
    elif options.write:
        write_matrix(rows, seed=seed, minutes=minutes)
    return 0 if holds and not inconsistent else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
