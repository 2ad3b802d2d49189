"""The table of faults is what the markers in the tests say, and every hole in it is an error."""

import subprocess
import sys
from pathlib import Path

import pytest

from manage_scripts.fault_table import (
    BEGIN,
    DOCUMENT,
    END,
    ROOT,
    FaultTableError,
    Marker,
    all_markers,
    markers_of,
    problems,
    run,
    table,
    with_table,
)
from tests.faults import FAULTS

NOT_YET = {34, 35, 45, 54, 55}
TWO = {1: "A crash: nothing is left.", 2: "A repeat: nothing is done."}
SHOWN = "import pytest\n\n\n@pytest.mark.fault(1, 2)\ndef test_all() -> None: ...\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with one test file and a document whose table is empty."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "tests/test_one.py").write_text(SHOWN)
    (tmp_path / DOCUMENT).write_text(f"# Guarantees\n\n{BEGIN}\n{END}\n\nThe end.\n")
    return tmp_path


def test_the_faults_are_those_in_scope_each_in_one_sentence() -> None:
    assert set(FAULTS) == set(range(1, 65)) - NOT_YET
    assert all(sentence.endswith(".") and "|" not in sentence and "\n" not in sentence for sentence in FAULTS.values())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("@pytest.mark.fault(3)\ndef test_a(): ...", [Marker("f.py::test_a", (3,))]),
        ("@pytest.mark.slow\n@pytest.mark.fault(3, 4)\ndef test_a(): ...", [Marker("f.py::test_a", (3, 4))]),
        ("@pytest.mark.fault(3)\nclass TestA:\n    def test_b(self): ...", [Marker("f.py::TestA", (3,))]),
        ("class TestA:\n    @pytest.mark.fault(3)\n    def test_b(self): ...", [Marker("f.py::TestA::test_b", (3,))]),
        (
            "class TestA:\n    pytestmark = pytest.mark.fault(3)\n    def test_b(self): ...",
            [Marker("f.py::TestA", (3,))],
        ),
        ("pytestmark = pytest.mark.fault(3)\ndef test_a(): ...", [Marker("f.py", (3,))]),
        ("pytestmark = [pytest.mark.slow, pytest.mark.fault(3)]\ndef test_a(): ...", [Marker("f.py", (3,))]),
        (
            "@pytest.mark.parametrize('n', [1, pytest.param(2, marks=pytest.mark.fault(3))])\ndef test_a(n): ...",
            [Marker("f.py::test_a", (3,))],
        ),
        ("def test_a(): ...", []),
    ],
)
def test_a_marker_is_found_wherever_pytest_takes_one(source: str, found: list[Marker]) -> None:
    assert markers_of(source, "f.py") == found


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("@pytest.mark.fault(3)\ndef helper(): ...", 1),
        ("pytestmark = pytest.mark.fault(3)", 1),
        ("def test_a():\n    pytest.mark.fault(3)", 2),
        ("class TestA:\n    pytestmark = pytest.mark.fault(3)", 2),
    ],
)
def test_a_marker_that_marks_no_test_is_an_error_with_its_line(source: str, line: int) -> None:
    with pytest.raises(FaultTableError, match=rf"f.py:{line}: .* marks no test"):
        markers_of(source, "f.py")


@pytest.mark.parametrize("arguments", ["", "'3'", "N", "True", "3, *more", "1.5"])
def test_a_marker_takes_plain_numbers(arguments: str) -> None:
    with pytest.raises(FaultTableError, match=r"f.py:1: .* plain numbers"):
        markers_of(f"@pytest.mark.fault({arguments})\ndef test_a(): ...", "f.py")


def test_an_unknown_number_and_a_fault_without_a_test_are_both_said() -> None:
    assert problems([Marker("f.py::test_a", (1, 65))], TWO) == [
        "f.py::test_a: fault 65 is none: see tests/faults.py",
        "fault 2 is shown by no test: A repeat: nothing is done.",
    ]
    assert problems([Marker("f.py::test_a", (1, 2))], TWO) == []


def test_the_table_links_each_test_once_from_the_document() -> None:
    markers = [Marker("tests/a/test_x.py::TestX::test_y", (2,)), Marker("tests/test_z.py", (2,))]
    last = table([*markers, markers[0]], TWO).splitlines()[-1]
    assert last == (
        "| 2 | A repeat: nothing is done. | [test_x.py::TestX::test_y](../tests/a/test_x.py)"
        "<br>[test_z.py](../tests/test_z.py) |"
    )


@pytest.mark.parametrize("document", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}", f"{BEGIN}{BEGIN}{END}"])
def test_a_document_needs_one_pair_of_comments(document: str) -> None:
    with pytest.raises(FaultTableError, match="needs one"):
        with_table(document, "rows")


def test_what_was_written_passes_the_check_and_keeps_the_rest_of_the_document(tree: Path) -> None:
    assert run(tree, TWO, check=False) == []
    written = (tree / DOCUMENT).read_text()
    assert run(tree, TWO, check=True) == []
    assert (tree / DOCUMENT).read_text() == written
    assert written.startswith("# Guarantees\n")
    assert written.endswith("The end.\n")
    assert "../tests/test_one.py" in written


def test_a_stale_table_is_an_error_that_names_the_command_and_is_left_as_it_was(tree: Path) -> None:
    before = (tree / DOCUMENT).read_text()
    (sentence,) = run(tree, TWO, check=True)
    assert "python3 manage_scripts/fault_table.py" in sentence
    assert (tree / DOCUMENT).read_text() == before


def test_a_file_that_cannot_be_read_is_named(tree: Path) -> None:
    (tree / "tests/test_two.py").write_text("def test_a(:\n")
    assert "test_two.py" in run(tree, TWO, check=True)[0]
    (tree / "tests/test_two.py").unlink()
    (tree / DOCUMENT).unlink()
    assert str(DOCUMENT) in run(tree, TWO, check=True)[0]


def test_every_fault_has_its_test() -> None:
    assert problems(all_markers(ROOT), FAULTS) == []


def test_the_command_needs_nothing_but_python_and_says_in_its_exit_code_what_is_wrong(tree: Path) -> None:
    for part in ("manage_scripts/fault_table.py", "tests/faults.py"):
        (tree / part).parent.mkdir(exist_ok=True)
        (tree / part).write_bytes((ROOT / part).read_bytes())
    command = [sys.executable, "-I", str(tree / "manage_scripts/fault_table.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "fault 3 is shown by no test" in done.stderr
    assert "is not what the tests say" in done.stderr
