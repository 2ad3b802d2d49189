"""A MariaDB server with one database and one account for each service."""

from __future__ import annotations

import hashlib
import re
import secrets
import subprocess
from pathlib import Path
from typing import NamedTuple

from manage_scripts.service_parts.process import ServiceError, ServiceProcess, own_account, remove_folder
from manage_scripts.service_parts.programs import require_program
from manage_scripts.service_parts.state import HOST

LONGEST_SOCKET_PATH = 107  # sockaddr_un.sun_path, less its final NUL
OWNERS = ("notification", "email")


class DatabaseUrls(NamedTuple):
    """DATABASE_URL of each service; the account in it owns that database and any `test_…`, and sees no other."""

    notification: str
    email: str


class MariaDb(ServiceProcess):
    name = "mariadb"
    programs = ("mariadbd", "mariadb-install-db", "mariadb")

    @property
    def data_folder(self) -> Path:
        return self.folder / "data"

    @property
    def socket_path(self) -> Path:
        beside = self.folder / "mysqld.sock"
        if len(str(beside)) <= LONGEST_SOCKET_PATH:
            return beside
        return Path("/tmp") / f"notifyx-{hashlib.sha256(str(beside).encode()).hexdigest()[:16]}.sock"

    def prepare(self) -> None:
        if (self.data_folder / "mysql").exists():
            return
        remove_folder(self.data_folder)
        fresh = self.folder / "data.new"  # renamed when complete: an install that was cut short is done again
        remove_folder(fresh)
        command = [
            *(require_program("mariadb-install-db"), "--no-defaults", f"--datadir={fresh}", "--skip-test-db"),
            *("--auth-root-authentication-method=socket", f"--auth-root-socket-user={own_account()}"),
            f"--user={own_account()}",
        ]
        command.append(f"--tmpdir={self._temporary_folder()}")
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise ServiceError(f"mariadb-install-db failed: {(made.stdout + made.stderr)[-1500:]}")
        fresh.rename(self.data_folder)

    def command(self) -> list[str]:
        return [
            *(require_program("mariadbd"), "--no-defaults", f"--user={own_account()}"),
            *(f"--datadir={self.data_folder}", f"--socket={self.socket_path}", f"--port={self.port}"),
            *(f"--bind-address={HOST}", "--skip-name-resolve", f"--pid-file={self.folder / 'mysqld.pid'}"),
            *("--character-set-server=utf8mb4", "--innodb-flush-log-at-trx-commit=1", "--skip-log-bin"),
            *("--innodb-buffer-pool-size=256M", "--max-connections=300", f"--tmpdir={self._temporary_folder()}"),
        ]

    def _temporary_folder(self) -> Path:
        # A starting server removes what it takes for its own leftovers, so two that share /tmp disturb each other.
        folder = self.folder / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def answers(self) -> bool:
        try:
            return self.execute("SELECT 1", seconds=3) == "1\n"
        except (ServiceError, subprocess.TimeoutExpired):
            return False

    def started(self) -> None:
        for owner in OWNERS:
            self._grant(f"{owner}_db", owner, self.state.password(f"mariadb_{owner}"))

    def wipe_data(self) -> None:
        remove_folder(self.data_folder)

    def databases(self) -> DatabaseUrls:
        """The URLs of `notification_db` and `email_db`, which are there whenever the server runs."""
        return DatabaseUrls(
            *(self._url(f"{owner}_db", owner, self.state.password(f"mariadb_{owner}")) for owner in OWNERS)
        )

    def create_databases(self, suffix: str) -> DatabaseUrls:
        """Two new, empty databases `…_db_<suffix>` with accounts of their own; what bore these names is dropped."""
        if not re.fullmatch(r"[a-z0-9_]{1,20}", suffix):
            raise ValueError(f"suffix {suffix!r}: use 1 to 20 of a-z, 0-9 and _")
        urls = []
        for owner in OWNERS:
            database, account, password = f"{owner}_db_{suffix}", f"{owner}_{suffix}", secrets.token_urlsafe(24)
            self.execute(f"DROP DATABASE IF EXISTS `{database}`")
            self._grant(database, account, password)
            urls.append(self._url(database, account, password))
        return DatabaseUrls(*urls)

    def execute(self, sql: str, *, seconds: float = 60) -> str:
        """Runs statements as the administrator over the socket; returns the rows, tab separated.

        Raises ServiceError where the server refuses, subprocess.TimeoutExpired after `seconds`.
        """
        command = [
            *(require_program("mariadb"), "--no-defaults", "--batch", "--skip-column-names"),
            *(f"--socket={self.socket_path}", f"--user={own_account()}"),
        ]
        done = subprocess.run(command, input=sql, capture_output=True, text=True, check=False, timeout=seconds)
        if done.returncode:
            raise ServiceError(f"MariaDB refused a statement of its administrator: {done.stderr.strip()}")
        return done.stdout

    def _grant(self, database: str, account: str, password: str) -> None:
        pattern = database.replace("_", r"\_")  # in GRANT, a bare _ stands for any character
        self.execute(
            f"CREATE DATABASE IF NOT EXISTS `{database}` CHARACTER SET utf8mb4;"
            f"CREATE USER IF NOT EXISTS '{account}'@'{HOST}' IDENTIFIED BY '{password}';"
            f"ALTER USER '{account}'@'{HOST}' IDENTIFIED BY '{password}';"
            f"GRANT ALL PRIVILEGES ON `{pattern}`.* TO '{account}'@'{HOST}';"
            f"GRANT ALL PRIVILEGES ON `test\\_%`.* TO '{account}'@'{HOST}';"
        )

    def _url(self, database: str, account: str, password: str) -> str:
        return f"mysql://{account}:{password}@{HOST}:{self.port}/{database}"
