import ast
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from manage_scripts import bootstrap

ROOT = Path(__file__).resolve().parents[2]
ENTRY_POINTS = ["bootstrap.py", "services.py", "test.py"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A clone's root with requirements of one line each, and an environment folder that was never installed into."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / ".venv").mkdir()
    for name in bootstrap.CONTAINED_IN:
        (tmp_path / "requirements" / f"{name}.txt").write_text(f"# nothing is needed for {name}\n")
    return tmp_path


def run_ensure_environment(root: Path, code: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Calls it in a process of its own, as a script does; `code` runs after it, in the environment's Python."""
    script = root / "script.py"
    script.write_text(
        f"import sys\nfrom pathlib import Path\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from manage_scripts.bootstrap import ensure_environment\n"
        f"ensure_environment('base', Path({str(root)!r}))\n{code}\n"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(root), "PIP_CONFIG_FILE": os.devnull, **variables}
    command = [sys.executable, str(script), "--argument", "two words"]
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)


def test_a_list_is_installed_once_a_list_that_contains_it_is(root: Path) -> None:
    bootstrap._write_stamp("dev", root)

    assert all(bootstrap.is_installed(name, root) for name in ("base", "production", "demo", "dev"))


def test_an_installed_list_says_nothing_about_a_larger_one(root: Path) -> None:
    bootstrap._write_stamp("demo", root)

    assert bootstrap.is_installed("base", root)
    assert not bootstrap.is_installed("production", root)
    assert not bootstrap.is_installed("dev", root)


def test_a_changed_list_is_to_be_installed_again(root: Path) -> None:
    bootstrap._write_stamp("dev", root)
    (root / "requirements" / "dev.txt").write_text("# another one\n")

    assert not bootstrap.is_installed("dev", root)
    assert not bootstrap.is_installed("base", root)


def test_a_stamp_ends_when_another_version_was_installed_over_it(root: Path) -> None:
    listing = root / "requirements" / "dev.txt"
    first = listing.read_text()
    bootstrap._write_stamp("dev", root)
    listing.write_text("# another one\n")
    bootstrap._write_stamp("demo", root)
    listing.write_text(first)

    assert not bootstrap.is_installed("dev", root)


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_old_python_gets_one_sentence(name: str) -> None:
    path = str(ROOT / "manage_scripts" / name)
    code = f"import sys, runpy; sys.version_info = (3, 8, 2); runpy.run_path({path!r}, None, '__main__')"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith("NotifyX needs Python 3.11 or newer, but this is Python 3.8 ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_old_python_can_read_the_entry_points(name: str) -> None:
    source = (ROOT / "manage_scripts" / name).read_text()

    tree = ast.parse(source, feature_version=(3, 7))

    # which the parser lets through, although Python 3.8 does not know it
    several = [node for node in ast.walk(tree) if isinstance(node, ast.With) and len(node.items) > 1]
    assert not [node.lineno for node in several if source.splitlines()[node.lineno - 1].rstrip().endswith("with (")]


def test_the_script_goes_on_in_the_new_environment_with_its_arguments(root: Path) -> None:
    done = run_ensure_environment(root, "print(sys.prefix, sys.argv[1:])")

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{root / '.venv'} ['--argument', 'two words']\n"
    assert bootstrap.is_installed("base", root)


def test_an_unreachable_registry_is_told_in_one_sentence(root: Path) -> None:
    with socket.socket() as closed:  # bound but not listening: every connection is refused
        closed.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
        (root / "requirements" / "base.txt").write_text(f"django==5.2 --hash=sha256:{'0' * 64}\n")
        done = run_ensure_environment(root, PIP_INDEX_URL=index)

    assert done.returncode == 1
    assert "The package registry is not reached" in done.stderr
    assert "PIP_INDEX_URL" in done.stderr
    assert "Traceback" not in done.stderr
    assert not bootstrap.is_installed("base", root)


@pytest.mark.parametrize(
    ("output", "remedy"),
    [
        ("Exception: Can not find valid pkg-config name.", "gcc pkg-config default-libmysqlclient-dev"),
        ("error: command 'gcc' failed: No such file or directory", "gcc pkg-config default-libmysqlclient-dev"),
        ("OSError: [Errno 28] No space left on device", "make room"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "make lock"),
        ("WARNING: Retrying after NewConnectionError: Temporary failure in name resolution", "check the network"),
        ("ERROR: something that nobody has seen yet", "something that nobody has seen yet"),
    ],
)
def test_each_fault_of_pip_is_one_sentence_with_its_remedy(output: str, remedy: str) -> None:
    sentence = bootstrap.explain_pip(f"Collecting mysqlclient\n{output}\n", "dev", Path("pip.log"))

    assert remedy in sentence
    assert "\n" not in sentence


def test_a_python_without_venv_names_debians_package(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    with pytest.raises(SystemExit, match="python3-venv"):
        bootstrap.ensure_environment("base", root)
