"""Makes the project's own virtual environment and continues the calling script in it.

Standard library only: this is what runs on a machine that has nothing but Python. The syntax stays readable to older
interpreters, so that these get a sentence and no SyntaxError.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

OLDEST_PYTHON = (3, 11)

if sys.version_info < OLDEST_PYTHON:
    sys.exit(
        "NotifyX needs Python %d.%d or newer, but this is Python %d.%d (%s): install a newer one, for instance "  # noqa: UP031
        "Debian 12's python3, and start this script with it."
        % (OLDEST_PYTHON + sys.version_info[:2] + (sys.executable,))
    )

ROOT = Path(__file__).resolve().parent.parent
CONTAINED_IN = {"base": ("production", "demo", "dev"), "production": ("dev",), "demo": ("dev",), "dev": ()}
STAMP = "installed-requirements.json"
PIP_LOG = "pip-install.log"


class BootstrapError(Exception):
    """What keeps the environment from being made: one sentence with the remedy."""


def ensure_environment(requirements: str, root: Path = ROOT) -> Path:
    """Returns the path of `.venv`'s Python once `requirements/<requirements>.txt` is installed there.

    When the caller does not run in `.venv` yet, this does not return: the caller is started again from its beginning,
    with the same arguments, by `.venv`'s Python. What cannot be done ends the process with one sentence and code 1.
    """
    python = root / ".venv" / "bin" / "python"
    try:
        with _locked(root / "requirements"):
            _create_environment(root / ".venv")
            _install(requirements, root)
        if Path(sys.prefix).resolve() != (root / ".venv").resolve():
            sys.stdout.flush()
            os.execv(python, [str(python), *sys.orig_argv[1:]])
    except BootstrapError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(
            f"The environment {root / '.venv'} cannot be used: {error}. Mend that, or remove the folder, and try again."
        )
    return python


class _locked:  # noqa: N801 - reads as a word in `with _locked(folder)`
    """Holds an exclusive lock on a folder: two scripts started at once on a new clone must not both install."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        self._descriptor = os.open(self._folder, os.O_RDONLY)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _create_environment(folder: Path) -> None:
    if _is_usable(folder / "bin" / "python"):
        return
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise BootstrapError(
            "Python's modules venv and ensurepip are missing: install Debian's package python3-venv "
            "(apt-get install python3-venv)."
        )
    command = [sys.executable, "-m", "venv", "--clear", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise BootstrapError(
            f"The environment {folder} cannot be made ({_last_line(made.stdout + made.stderr)}): "
            "is the folder writable, is there room on the disk, is Debian's package python3-venv installed?"
        )


def _is_usable(python: Path) -> bool:
    """False as well where an upgrade of the system's Python has left the environment without its packages."""
    if not os.access(python, os.X_OK):
        return False
    probe = (
        "import importlib.util, sys; sys.exit(sys.version_info < (3, 11) or importlib.util.find_spec('pip') is None)"
    )
    return subprocess.run([python, "-I", "-c", probe], capture_output=True, check=False).returncode == 0


def is_installed(requirements: str, root: Path = ROOT) -> bool:
    """Whether these requirements, or a list that contains them, were installed as the files read now."""
    stamps = _read_stamps(root)
    return any(stamps.get(name) == _digest(name, root) for name in (requirements, *CONTAINED_IN[requirements]))


def _read_stamps(root: Path) -> dict[str, str]:
    try:
        stamps: dict[str, str] = json.loads((root / ".venv" / STAMP).read_text())
    except (OSError, ValueError):
        return {}
    return stamps


def _digest(requirements: str, root: Path) -> str:
    path = root / "requirements" / f"{requirements}.txt"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"


def _write_stamp(requirements: str, root: Path) -> None:
    """The lists are compiled together: what was installed from today's files stays installed, older stamps go."""
    kept = {name: digest for name, digest in _read_stamps(root).items() if digest == _digest(name, root)}
    stamp = root / ".venv" / STAMP
    written = stamp.with_suffix(".new")
    written.write_text(json.dumps({**kept, requirements: _digest(requirements, root)}))
    written.replace(stamp)


def _install(requirements: str, root: Path) -> None:
    if is_installed(requirements, root):
        return
    listing = root / "requirements" / f"{requirements}.txt"
    command = [
        *(str(root / ".venv" / "bin" / "python"), "-m", "pip", "install", "--require-hashes", "--no-deps"),
        *("--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--retries", "2", "-r", str(listing)),
    ]
    progress = _Progress(listing)
    log_path = root / ".venv" / PIP_LOG
    with log_path.open("w") as log:
        exit_code = _run_pip(command, log, progress)
    if exit_code:
        raise BootstrapError(explain_pip(log_path.read_text(), requirements, log_path))
    _write_stamp(requirements, root)


def _run_pip(command: list[str], log: TextIO, progress: "_Progress") -> int:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            log.write(line)
            progress.read(line)
    progress.close(succeeded=pip.returncode == 0)
    return pip.returncode


class _Progress:
    """One line that is written over on a terminal; on a pipe only its first and its last state."""

    def __init__(self, listing: Path) -> None:
        self._total = len(re.findall(r"^[A-Za-z0-9]", listing.read_text(), re.MULTILINE))
        self._seen = 0
        self._doing = "preparing"
        self._started = time.monotonic()
        self._interactive = sys.stderr.isatty()
        self._name = f"requirements/{listing.name}"
        self._show()

    def read(self, line: str) -> None:
        words = line.split()
        if line.startswith("Ignoring "):  # its marker excludes this Python or this system
            self._total -= 1
        elif line.startswith(("Collecting ", "Requirement already satisfied: ")):
            self._seen += 1
            self._doing = words[1] if words[0] == "Collecting" else words[3]
        elif line.startswith("Installing collected packages"):
            self._doing = "unpacking all"
        elif line.lstrip().startswith("Building wheel for "):
            self._doing = f"compiling {words[3]}"
        else:
            return
        if self._interactive:
            self._show()

    def close(self, *, succeeded: bool) -> None:
        self._doing = "done" if succeeded else "failed"
        self._show()
        if self._interactive:
            print(file=sys.stderr)

    def _show(self) -> None:
        seconds = time.monotonic() - self._started
        text = f"Installing {self._name}: package {self._seen} of {self._total}, {self._doing}, {seconds:.0f} s"
        if self._interactive:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)


_NETWORK = re.compile(
    r"NewConnectionError|ConnectTimeoutError|ReadTimeoutError|ConnectionResetError|ProxyError|Name or service not known"
    r"|name resolution|Network is unreachable|Connection refused|No route to host|Connection aborted",
    re.IGNORECASE,
)
_COMPILER = re.compile(r"valid pkg-config name|command '\S*(gcc|cc)' failed|Python\.h: No such|mysql\.h: No such")


def explain_pip(output: str, requirements: str, log_path: Path) -> str:
    """One sentence for an operator: what kept pip from installing, and the remedy."""
    listing = f"requirements/{requirements}.txt"
    if _COMPILER.search(output):
        return (
            "mysqlclient could not be compiled: install Debian's packages gcc pkg-config default-libmysqlclient-dev "
            f"(or libmariadb-dev) python3-dev, and start again (details: {log_path})."
        )
    if "No space left on device" in output:
        return f"No space is left on the disk for the packages of {listing}: make room, and start again."
    if "DO NOT MATCH THE HASHES" in output:
        return (
            f"A downloaded package differs from the hash in {listing}: nothing was installed; ask your registry's "
            f"mirror, or compile the lists again with `make lock` (details: {log_path})."
        )
    if "SSLError" in output or "CERTIFICATE_VERIFY_FAILED" in output:
        return f"The package registry's certificate is not trusted here: set PIP_CERT (details: {log_path})."
    if _NETWORK.search(output):
        return (
            f"The package registry is not reached, so {listing} cannot be installed: check the network and the "
            f"variables PIP_INDEX_URL and HTTPS_PROXY, and start again (details: {log_path})."
        )
    errors = [line for line in output.splitlines() if line.startswith("ERROR")]
    return f"pip could not install {listing}: {_last_line(' '.join(errors) or output)} (details: {log_path})."


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def main() -> None:
    names = sys.argv[1:] or ["dev"]
    if len(names) != 1 or names[0] not in CONTAINED_IN:
        sys.exit(f"usage: python3 manage_scripts/bootstrap.py [{' | '.join(CONTAINED_IN)}]")
    print(ensure_environment(names[0]))


if __name__ == "__main__":
    main()
