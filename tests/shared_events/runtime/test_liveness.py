"""The liveness file, and its check as a container runs it."""

import os
import subprocess
import sys
import time
from pathlib import Path

from shared_events.runtime.liveness import Liveness


def check(**variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIVENESS_")}
    command = [sys.executable, "-m", "shared_events.runtime.liveness"]
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=60, check=False)


def test_a_fresh_file_is_alive(tmp_path: Path) -> None:
    Liveness(str(tmp_path / "alive")).touch()
    checked = check(LIVENESS_FILE=str(tmp_path / "alive"))
    assert (checked.returncode, checked.stderr) == (0, "")


def test_an_old_file_is_not_and_says_how_old(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    path.touch()
    then = time.time() - 100
    os.utime(path, (then, then))
    checked = check(LIVENESS_FILE=str(path))
    assert checked.returncode == 1
    assert "last touched 10" in checked.stderr
    assert "LIVENESS_MAX_AGE_SECONDS=60" in checked.stderr


def test_the_limit_is_a_variable(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    path.touch()
    then = time.time() - 100
    os.utime(path, (then, then))
    assert check(LIVENESS_FILE=str(path), LIVENESS_MAX_AGE_SECONDS="1000").returncode == 0


def test_a_missing_file_is_not_alive(tmp_path: Path) -> None:
    checked = check(LIVENESS_FILE=str(tmp_path / "none"))
    assert checked.returncode == 1
    assert "No such file" in checked.stderr
    assert "Traceback" not in checked.stderr


def test_no_variable_is_not_alive() -> None:
    checked = check()
    assert checked.returncode == 1
    assert "LIVENESS_FILE is not set" in checked.stderr


def test_an_empty_path_switches_it_off(tmp_path: Path) -> None:
    Liveness("").touch()
    assert not list(tmp_path.iterdir())


def test_the_file_is_touched_at_most_once_a_second(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    liveness = Liveness(str(path))
    liveness.touch()
    path.unlink()
    liveness.touch()
    assert not path.exists()
