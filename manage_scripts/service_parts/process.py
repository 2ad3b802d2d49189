"""One server program as a process of its own session that outlives its starter and is found again by its pid."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import select
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from manage_scripts.service_parts.programs import ProgramMissingError, require_program
from manage_scripts.service_parts.state import State, port_is_free

END_SECONDS = 30
LOG_TAIL_BYTES = 2000


class ServiceError(Exception):
    """A service could not be started, stopped or asked; the text says what to do and shows its log's end."""


class ServiceProcess(ABC):
    """A server with its folder, port, log and pid file. Whoever opens the same folder drives the same server."""

    name: str
    programs: tuple[str, ...]
    start_seconds = 60

    def __init__(self, folder: Path, state: State) -> None:
        self.folder = folder / self.name
        self.state = state
        self.log_path = self.folder / f"{self.name}.log"
        self._pid_path = self.folder / "pid.json"

    @property
    def port(self) -> int:
        """Its TCP port on 127.0.0.1, the same for the folder's whole life."""
        return self.state.port(self.name)

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port,)

    @abstractmethod
    def prepare(self) -> None:
        """Makes what the server needs before its start; does nothing where it is there already."""

    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server does its work now. May raise OSError for "not yet"; takes at most about a second."""

    @abstractmethod
    def wipe_data(self) -> None: ...

    def started(self) -> None:  # noqa: B027 - most servers have nothing to set up once they answer
        """Called after each start, when the server answers."""

    @property
    def pid(self) -> int | None:
        """The server's process id, or None. A pid that now belongs to another program counts as gone."""
        try:
            noted = json.loads(self._pid_path.read_text())
        except (OSError, ValueError):
            return None
        pid = int(noted["pid"])
        now = process_stat(pid)
        if now is None or now.start_ticks != noted["start_ticks"]:
            return None
        if now.state in "ZX":
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # reaps it where this process is the one that started it
            return None
        return pid

    @property
    def running(self) -> bool:
        return self.pid is not None

    @property
    def frozen(self) -> bool:
        pid = self.pid
        now = process_stat(pid) if pid is not None else None
        return now is not None and now.state == "T"

    def start(self) -> None:
        """Returns once the server answers; at once if it already does. Blocks for `start_seconds` at most."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if not self.running:
                for program in self.programs:
                    try:
                        require_program(program)
                    except ProgramMissingError as error:
                        raise ServiceError(str(error)) from error
                self._refuse_taken_ports()
                self.prepare()
                self._spawn()
            self._wait_until(self._answers_quietly, self.start_seconds, "answer")
            self.started()

    def stop(self) -> None:
        """Ends the server in order (SIGTERM) and returns when it is gone. One that ignores that is killed, and told."""
        pid = self.pid
        if pid is not None and not self._end(pid, signal.SIGTERM):
            self.kill()
            raise ServiceError(f"{self.name} ignored SIGTERM for {END_SECONDS} s; it was killed.{self._tail()}")
        self._pid_path.unlink(missing_ok=True)

    def kill(self) -> None:
        """Ends the server with SIGKILL, as a crash does, and returns when it is gone."""
        pid = self.pid
        if pid is not None and not self._end(pid, signal.SIGKILL):
            raise ServiceError(f"{self.name} (pid {pid}) did not end within {END_SECONDS} s of SIGKILL.")
        self._pid_path.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Stops the server's clock (SIGSTOP): connections stay open and nothing answers. Returns when it stands."""
        self._signal(self._required_pid(), signal.SIGSTOP)
        self._wait_until(lambda: self.frozen, 5, "stand still after SIGSTOP")

    def thaw(self) -> None:
        self._signal(self._required_pid(), signal.SIGCONT)
        self._wait_until(lambda: not self.frozen, 5, "go on after SIGCONT")

    def wipe(self) -> None:
        """Removes the server's data, as a lost disk does; the next start makes an empty one on the same port."""
        if self.running:
            raise ServiceError(f"{self.name} is running (pid {self.pid}): stop or kill it before its data is wiped.")
        self.wipe_data()

    def log_tail(self) -> str:
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as log:
            log.seek(max(0, self.log_path.stat().st_size - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").strip()

    def _spawn(self) -> None:
        """posix_spawn and not Popen: no object is left that would warn about a child which is meant to live on."""
        program, *arguments = self.command()
        null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        log = (os.POSIX_SPAWN_OPEN, 1, str(self.log_path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        pid = os.posix_spawn(
            program,
            [program, *arguments],
            os.environ,
            file_actions=[null, log, (os.POSIX_SPAWN_DUP2, 1, 2)],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
        )
        now = process_stat(pid)
        noted = self._pid_path.with_suffix(".new")
        noted.write_text(json.dumps({"pid": pid, "start_ticks": now.start_ticks if now else None}))
        noted.replace(self._pid_path)

    def _refuse_taken_ports(self) -> None:
        for port in self.ports:
            if not port_is_free(port):
                raise ServiceError(
                    f"{self.name}'s port {port} on 127.0.0.1 is in use by another program: end that one, or stop the "
                    f"services and remove {self.state.path}, so that new ports are chosen."
                )

    def _answers_quietly(self) -> bool:
        try:
            return self.answers()
        except OSError:
            return False

    def _wait_until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Polls until the condition holds; a server that ends meanwhile, or the time-out, raises ServiceError."""
        deadline = time.monotonic() + seconds
        while not condition():
            if what == "answer" and not self.running:
                raise ServiceError(f"{self.name} ended while it was started.{self._tail()}")
            if time.monotonic() > deadline:
                raise ServiceError(f"{self.name} did not {what} within {seconds:.0f} s.{self._tail()}")
            time.sleep(0.03)

    def _tail(self) -> str:
        return f" Its log {self.log_path} ends so:\n{self.log_tail()}"

    def _required_pid(self) -> int:
        pid = self.pid
        if pid is None:
            raise ServiceError(f"{self.name} is not running: start it first.")
        return pid

    def _end(self, pid: int, number: signal.Signals) -> bool:
        """Whether the whole process ended in time. A pidfd tells, as /proc shows a zombie while other threads of a
        killed process still hold its ports.
        """
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            self._signal(pid, number)
            self._signal(pid, signal.SIGCONT)  # a frozen process takes SIGTERM only when it goes on
            end = select.poll()
            end.register(descriptor, select.POLLIN)
            return bool(end.poll(END_SECONDS * 1000)) and not self.running  # asking `running` reaps a child
        finally:
            os.close(descriptor)

    @staticmethod
    def _signal(pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def own_account() -> str:
    """The name of the account that this process acts as; LOGNAME and USER may still name another one after su."""
    return pwd.getpwuid(os.geteuid()).pw_name


def remove_folder(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


class ProcessStat(NamedTuple):
    """The parts of proc(5)'s stat that matter here. With its pid, `start_ticks` (clock ticks since boot) names one
    process for ever, as pids are used again. `state` T is stopped, Z a zombie.
    """

    state: str
    start_ticks: int


def process_stat(pid: int) -> ProcessStat | None:
    try:
        # the program's name is in brackets and may hold spaces and brackets itself
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return ProcessStat(fields[0], int(fields[19]))
