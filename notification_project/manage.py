#!/usr/bin/env python
import sys
from pathlib import Path

# The repository's root is the only import root, from wherever this is started.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from shared_events.service.command_line import run  # noqa: E402 (the path comes first)

if __name__ == "__main__":
    run("notification_project.settings")
