"""The whole of NotifyX on this machine, with nothing installed but Python: `python3 manage_scripts/demo.py`.

Redis, Kafka and the mail server are embedded and speak their real protocols, the databases are SQLite files, and both
services run in the processes of docker-compose.yml; only the values of their variables differ.
"""

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from manage_scripts.bootstrap import ensure_environment  # noqa: E402 the root of the repository is the only import root


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is no port: give one from 1 to 65535, or 0 for any free one")
    return number


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Runs NotifyX on this machine with embedded parts, posts sample notifications and shows what "
        "becomes of them. The first run installs what it needs into .venv. Everything listens on 127.0.0.1 only, is "
        "kept in memory and in a folder in .demo, and is gone at the end.",
        epilog="Exit code: 0, or 1 where a process failed or a sample did not end as it should, 2 for a wrong option, "
        "130 when interrupted before the samples were final.",
    )
    parser.add_argument("--once", action="store_true", help="end after the samples instead of waiting for Ctrl-C")
    parser.add_argument(
        "--folder",
        type=Path,
        help="a new folder for the databases and logs, which is kept; without it they are removed",
    )
    for name, usual, what in (
        ("--port", 8000, "the API and the notifications' console"),
        ("--email-port", 8001, "the e-mails' console"),
        ("--mailbox-port", 8025, "the mailbox's page"),
    ):
        usage = f"port of {what} (default: {usual}, or a free one where that is in use; 0: a free one)"
        parser.add_argument(name, type=port, metavar="PORT", help=usage)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    try:
        ensure_environment("demo")
        from manage_scripts.demo_parts.session import Options, run

        sys.exit(run(Options(**vars(arguments))))
    except KeyboardInterrupt:  # before there was anything to end
        sys.exit(130)


if __name__ == "__main__":
    main()
