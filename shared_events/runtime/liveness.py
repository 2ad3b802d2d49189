"""A file that a worker touches each cycle, and the check of it that a container runs.

`python -m shared_events.runtime.liveness` exits 0 where LIVENESS_FILE was touched within LIVENESS_MAX_AGE_SECONDS (default 60), else 1.
"""

import os
import sys
import time
from pathlib import Path

TOUCH_EVERY_SECONDS = 1.0


class Liveness:
    """Touches `path` at most once a second; an empty path switches it off."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None
        self._touched_at = -TOUCH_EVERY_SECONDS

    def touch(self) -> None:
        if self._path is not None and time.monotonic() - self._touched_at >= TOUCH_EVERY_SECONDS:
            self._path.touch()
            self._touched_at = time.monotonic()


def main() -> int:
    """The exit code; what is wrong is said on stderr."""
    path = os.environ.get("LIVENESS_FILE", "")
    limit = float(os.environ.get("LIVENESS_MAX_AGE_SECONDS", "60"))
    if not path:  # Path("") would be the current folder
        sys.stderr.write("LIVENESS_FILE is not set: set it to the file that the worker touches\n")
        return 1
    try:
        age = time.time() - Path(path).stat().st_mtime
    except OSError as error:
        sys.stderr.write(f"LIVENESS_FILE={path!r} cannot be read ({error.strerror}): does the worker run with it?\n")
        return 1
    if age > limit:
        sys.stderr.write(f"{path} was last touched {age:.0f} s ago, more than LIVENESS_MAX_AGE_SECONDS={limit:.0f}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
