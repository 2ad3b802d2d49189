"""Shows what NotifyX promises, on this machine: `python3 manage_scripts/prove.py [--quick | --full | --soak MINUTES | --only NAME]`.

`--list` names the faults, `--seed N` repeats a run's random choices, `--write` puts a whole run into docs/guarantees.md.

Installs what is missing as test.py does, starts MariaDB, Redis, Kafka, an SMTP sink and every process of the product, makes one
fault happen after the other while a load runs, and prints the guarantee matrix: what came of every notification that was accepted.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import os

from manage_scripts.bootstrap import ROOT, ensure_environment
from manage_scripts.service_parts import programs
from manage_scripts.test import install_programs
from tests.proof.options import parse


def main() -> None:
    parse(sys.argv[1:])  # what is wrong with them is said before anything is installed
    try:
        install_programs()
    except programs.ProgramMissingError as error:
        sys.exit(str(error))
    ensure_environment("dev")
    os.chdir(ROOT)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    os.execv(sys.executable, [sys.executable, "-m", "tests.proof", *sys.argv[1:]])


if __name__ == "__main__":
    main()
