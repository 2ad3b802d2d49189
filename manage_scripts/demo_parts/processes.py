"""The demo's child processes: each leads a session of its own, writes to a log of its own, and ends with the demo."""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from manage_scripts.demo_parts.interruption import Interruption

STOP_SECONDS = 3.0
POLL_SECONDS = 0.05
TAIL_LINES = 25
PR_SET_PDEATHSIG = 1
# Loaded here because little is safe between fork and exec, where it is used.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


Command = tuple[str, list[str], Mapping[str, str]]  # name, command line, environment


class ProcessEndedError(Exception):
    """A process ended that should not have, or ended with an error; the text holds the end of its log."""


def end_with(parent: int) -> Callable[[], None]:
    """What a child runs before its program: ask Linux for SIGTERM when the demo dies, even by SIGKILL (prctl(2))."""

    def ask() -> None:
        assert _LIBC is not None
        # The handler that a child inherits from the demo would note the signal in memory that exec throws away.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the request
            os.kill(os.getpid(), signal.SIGTERM)

    return ask


class Child:
    """One started process and its log."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    def ended(self, why: str) -> ProcessEndedError:
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        said = "\n".join(f"  {line}" for line in lines) or "  (its log is empty)"
        return ProcessEndedError(f"{self.name} {why}. The end of its log:\n{said}")

    def signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


class Processes:
    """Starts children in `root` and ends them all; their logs are `<name>.log` in `logs`. For the main thread only:
    Linux takes the end of the thread that started a child for the end of its parent.
    """

    def __init__(self, root: Path, logs: Path, interruption: Interruption) -> None:
        self._root = root
        self._logs = logs
        self._interruption = interruption
        self._servers: list[Child] = []
        self._running: list[Child] = []
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        """Start a process that is expected to run until `stop`."""
        self._running.append(self._spawn(name, command, environment, subprocess.DEVNULL))

    def start_server(self, name: str, command: list[str], environment: Mapping[str, str]) -> Child:
        """Start a server that prints its address (see `address`) and is ended after all that may need it."""
        child = self._spawn(name, command, environment, subprocess.PIPE)
        self._servers.append(child)
        return child

    def address(self, server: Child, *, seconds: float = 20) -> str:
        """The address that a server prints as its first line. Raises ProcessEndedError where none comes in time."""
        assert server.process.stdout is not None
        deadline = time.monotonic() + seconds
        with server.process.stdout as output:
            while not select.select([output], [], [], POLL_SECONDS)[0] and time.monotonic() < deadline:
                self._interruption.check()
            printed = output.readline().decode().strip() if select.select([output], [], [], 0)[0] else ""
        if not printed:
            raise server.ended("did not start")
        return printed

    def run_all(self, commands: list[Command], *, seconds: float = 120) -> list[str]:
        """Run commands side by side to their ends and return what each printed.

        Raises ProcessEndedError where one ends with another code than 0 or takes longer, KeyboardInterrupt as `check`.
        """
        children = [self._spawn(name, command, environment, subprocess.PIPE) for name, command, environment in commands]
        self._running.extend(children)
        deadline = time.monotonic() + seconds
        printed = [self._finish(child, deadline) for child in children]
        self._running = [child for child in self._running if child not in children]
        return printed

    def check(self) -> None:
        """Raise ProcessEndedError if a process that should run has ended, KeyboardInterrupt if the demo should end."""
        self._interruption.check()
        for child in (*self._servers, *self._running):
            code = child.process.poll()
            if code is not None:
                raise child.ended(f"ended unexpectedly with code {code}")

    def stop(self) -> None:
        """End all: SIGTERM to each group, then to the servers', SIGKILL after STOP_SECONDS; blocks until then."""
        deadline = time.monotonic() + STOP_SECONDS
        for generation in (self._running, self._servers):
            for child in generation:
                child.signal_group(signal.SIGTERM)
            for child in generation:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(timeout=max(0.1, deadline - time.monotonic()))
            for child in generation:
                child.signal_group(signal.SIGKILL)  # the leader, or what it has left behind
                child.process.wait()
            generation.clear()

    def _finish(self, child: Child, deadline: float) -> str:
        while True:
            try:
                printed, _ = child.process.communicate(timeout=POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                self._interruption.check()
                if time.monotonic() > deadline:
                    raise child.ended("did not finish in time") from None
        if child.process.returncode:
            raise child.ended(f"ended with code {child.process.returncode}")
        return printed.decode()

    def _spawn(self, name: str, command: list[str], environment: Mapping[str, str], output: int) -> Child:
        path = self._logs / f"{name}.log"
        with path.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self._root,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output if output == subprocess.PIPE else log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal reaches the demo alone, which ends the others in order
                preexec_fn=end_with(os.getpid()) if _LIBC else None,  # noqa: PLW1509 it makes few system calls, no lock
            )
        return Child(name, process, path)
