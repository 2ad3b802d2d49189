"""Which programs the services need, where they are, and how Debian provides them. Standard library only: the C
compiler that mysqlclient needs is among them, so this runs before there is a virtual environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Collection, Iterable
from pathlib import Path

SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"

PACKAGE_OF = {
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "mariadb": "mariadb-client",
    "redis-server": "redis-server",
    "smtp-sink": "postfix",
    "java": "openjdk-17-jre-headless",
    "mvn": "maven",
    "gcc": "gcc",
    "pkg-config": "pkg-config",
    "make": "make",
    "docker-compose": "docker-compose",
    "chromium": "chromium",
}
SERVICE_PROGRAMS = ("mariadbd", "mariadb-install-db", "mariadb", "redis-server", "smtp-sink", "java", "mvn")
COMPILE_PROGRAMS = ("gcc", "pkg-config")
CI_PROGRAMS = ("make", "docker-compose", "chromium")


class ProgramMissingError(Exception):
    """A program that is not installed; the text names the package and the command that installs it."""


def find_program(name: str) -> str | None:
    """The program's absolute path; servers lie in /usr/sbin, which an ordinary user's PATH leaves out."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_FOLDERS}")


def require_program(name: str) -> str:
    found = find_program(name)
    if found is None:
        package = PACKAGE_OF[name]
        raise ProgramMissingError(
            f"{name} is missing: install Debian's {package} (apt-get install --no-install-recommends {package}), "
            "or let root run `python3 manage_scripts/services.py install`."
        )
    return found


def missing_packages(programs: Iterable[str], *, compiles: bool = False) -> list[str]:
    """Debian's names of what is not there, sorted; `compiles` adds what building mysqlclient needs."""
    names = {PACKAGE_OF[program] for program in programs if find_program(program) is None}
    if compiles:
        names |= {PACKAGE_OF[program] for program in COMPILE_PROGRAMS if find_program(program) is None}
        if not _has_library("mariadb") and not _has_library("mysqlclient"):
            names.add("libmariadb-dev")
        if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
            names.add("python3-dev")
    return sorted(names)


def _has_library(name: str) -> bool:
    pkg_config = find_program("pkg-config")
    if pkg_config is None:
        return False
    return subprocess.run([pkg_config, "--exists", name], capture_output=True, check=False).returncode == 0


def may_install() -> bool:
    """Whether apt-get is there and this user may run it without being asked for a password."""
    return find_program("apt-get") is not None and _privileged() is not None


def _privileged() -> list[str] | None:
    if os.geteuid() == 0:
        return []
    sudo = find_program("sudo")
    if sudo is not None and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return [sudo, "-n"]
    return None


def install_packages(packages: Collection[str]) -> None:
    """Installs Debian's packages; the daemons that some of them start by themselves are not used. Blocks for minutes.

    Raises ProgramMissingError where that is not possible here or apt-get fails.
    """
    if not packages:
        return
    wanted = " ".join(packages)
    prefix = _privileged()
    if prefix is None or find_program("apt-get") is None:
        raise ProgramMissingError(f"Missing: {wanted}. Run as root: apt-get install --no-install-recommends {wanted}")
    print(f"Installing Debian's packages: {wanted}", flush=True)
    environment = ("DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_MODE=l")  # neither may ask anybody anything
    for arguments in (("update", "-qq"), ("install", "-qq", "-y", "--no-install-recommends", *packages)):
        command = [*prefix, "env", *environment, "apt-get", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            tail = "\n".join(done.stdout.splitlines()[-5:])
            raise ProgramMissingError(f"`apt-get {' '.join(arguments)}` failed; run it by hand:\n{tail}")
