"""The command line of the proof; nothing here needs more than Python."""

import argparse
from pathlib import Path

DESCRIPTION = (
    "Shows what NotifyX promises: starts real services and every process, makes one fault happen after the other while a load runs, "
    "and prints what came of each notification. Exit code 0 only if every row keeps every promise."
)
LONGEST_SOAK_MINUTES = 10_080
COLUMNS = """\
a row says, of the notifications that were accepted while its fault happened:
  accepted      answered with 202
  sent          SENT, and the mail has arrived
  failed        FAILED, because the mail server refused it for good
  lost          accepted and not stored, SENT without a mail, or FAILED though nobody refused it: must be 0
  extra copies  mails beyond the first of each, never more than are announced
  announced     the sum of possible_duplicates
  uncertain     held for an operator, as on_uncertain=hold asks for
  left open     neither final nor held when all was over: must be 0
  seconds       from the fault's end until nothing was left to do
BROKEN at a row's end says which promise was not kept, or that the fault could not be made to happen.

Needs Debian's packages of MariaDB, Redis, Java and Postfix (installed where this user may) and no Docker. Columns, promises and
their limits: docs/guarantees.md.
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Ends the process, with a sentence, where the arguments contradict each other."""
    parser = argparse.ArgumentParser(
        prog="prove.py",
        description=DESCRIPTION,
        epilog=COLUMNS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--quick", action="store_true", help="a choice of faults, a few minutes (the default)")
    choice.add_argument("--full", action="store_true", help="every fault, about half an hour")
    choice.add_argument(
        "--soak", type=float, metavar="MINUTES", help="one load with faults drawn by chance, and each process's memory"
    )
    choice.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="faults with this in their names; may be repeated"
    )
    choice.add_argument("--list", action="store_true", help="print the faults' names")
    parser.add_argument(
        "--seed",
        type=int,
        help="make the same random choices as the run that printed this number (timing still differs)",
    )
    parser.add_argument(
        "--write", action="store_true", help="with --full or --soak: put what was shown into docs/guarantees.md"
    )
    parser.add_argument(
        "--services",
        type=Path,
        metavar="DIR",
        help="a folder for the services and logs, which is kept (else a temporary one)",
    )
    options = parser.parse_args(arguments)
    if options.soak is not None and not 0 < options.soak <= LONGEST_SOAK_MINUTES:
        parser.error(f"--soak {options.soak:g}: give minutes above 0, and {LONGEST_SOAK_MINUTES:,} (a week) at most")
    if options.write and not (options.full or options.soak):
        parser.error("--write goes with --full or --soak: the document shows whole runs only")
    return options
