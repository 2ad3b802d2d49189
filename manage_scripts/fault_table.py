"""Which test shows which fault: writes the table of docs/guarantees.md, `python3 manage_scripts/fault_table.py [--check]`.

Tests name the faults that they show with `@pytest.mark.fault(13, 14)`, also on a class or as the module's `pytestmark`. They are
found by reading the source, so this needs nothing but Python. Exit code 1, with a sentence for each reason, where a fault has no
test, a marker names no fault or marks no test, or (with --check, which writes nothing) the table is not what the tests say.
"""

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from tests.faults import FAULTS  # noqa: E402 (the root of the repository is the only import root)

DOCUMENT = Path("docs/guarantees.md")
BEGIN, END = "<!-- faults:begin -->", "<!-- faults:end -->"
REMEDY = "run `python3 manage_scripts/fault_table.py` and commit docs/guarantees.md"

Scope = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class FaultTableError(Exception):
    """The document or a marker is not as this needs it; the message says where and what to do."""


@dataclass(frozen=True, slots=True)
class Marker:
    """The faults that one marker names for what it stands on: a test, a class or a module, as pytest's node id."""

    node_id: str
    numbers: tuple[int, ...]

    @property
    def path(self) -> str:
        return self.node_id.partition("::")[0]


def is_fault_marker(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault"


def markers_of(source: str, path: str) -> list[Marker]:
    """The markers of one file, in its order. FaultTableError for one that is no list of numbers, or marks no test."""
    tree = ast.parse(source, path)
    written = [node for node in ast.walk(tree) if is_fault_marker(node)]
    attached: dict[ast.AST, str] = {}
    for scope, node_id in _scopes(tree, path):
        attached |= dict.fromkeys(_own_markers(scope), node_id)
    stray = [node for node in written if node not in attached]
    if stray:
        raise FaultTableError(
            f"{path}:{_line(stray[0])}: this fault marker marks no test: put it on a test, a Test class or into pytestmark"
        )
    return [Marker(node_id, _numbers(marker, path)) for marker, node_id in attached.items()]


def _scopes(scope: ast.Module | ast.ClassDef, node_id: str) -> Iterator[tuple[Scope, str]]:
    """`scope` where it holds tests, and each of them, with its node id."""
    inner: list[tuple[Scope, str]] = []
    for node in scope.body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            inner += _scopes(node, f"{node_id}::{node.name}")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            inner.append((node, f"{node_id}::{node.name}"))
    if inner:
        yield scope, node_id
    yield from inner


def _own_markers(scope: Scope) -> list[ast.AST]:
    marked: list[ast.expr] = [] if isinstance(scope, ast.Module) else list(scope.decorator_list)
    marked += [
        statement.value
        for statement in scope.body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "pytestmark"
    ]
    return [node for expression in marked for node in ast.walk(expression) if is_fault_marker(node)]


def _numbers(marker: ast.AST, path: str) -> tuple[int, ...]:
    arguments = marker.args if isinstance(marker, ast.Call) else []
    numbers = [
        argument.value for argument in arguments if isinstance(argument, ast.Constant) and type(argument.value) is int
    ]
    if not numbers or len(numbers) != len(arguments):
        raise FaultTableError(f"{path}:{_line(marker)}: a fault marker takes plain numbers: @pytest.mark.fault(13, 14)")
    return tuple(numbers)


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))


def all_markers(root: Path) -> list[Marker]:
    """The markers of every test file, in the order of paths. FaultTableError as `markers_of`."""
    paths = sorted((root / "tests").rglob("test_*.py"))
    return [
        marker
        for path in paths
        for marker in markers_of(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix())
    ]


def problems(markers: Sequence[Marker], faults: Mapping[int, str]) -> list[str]:
    """A sentence for each marker that names no fault, and for each fault that no test shows."""
    unknown = [
        f"{marker.node_id}: fault {number} is none: see tests/faults.py"
        for marker in markers
        for number in marker.numbers
        if number not in faults
    ]
    shown = {number for marker in markers for number in marker.numbers}
    return unknown + [
        f"fault {number} is shown by no test: {sentence}" for number, sentence in faults.items() if number not in shown
    ]


def table(markers: Sequence[Marker], faults: Mapping[int, str]) -> str:
    """The table in Markdown, one row a fault, with links that are relative to the document."""
    lines = ["| | what happens: what must come of it | shown by |", "|---|---|---|"]
    for number, sentence in faults.items():
        shown_by = dict.fromkeys(marker for marker in markers if number in marker.numbers)
        links = "<br>".join(f"[{marker.node_id.rpartition('/')[2]}](../{marker.path})" for marker in shown_by)
        lines.append(f"| {number} | {sentence} | {links} |")
    return "\n".join(lines)


def with_table(document: str, rows: str) -> str:
    """`document` with `rows` between its two comments. FaultTableError where they are not there once each, in this order."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise FaultTableError(f"{DOCUMENT}: needs one {BEGIN} and, after it, one {END}: the table stands between them")
    return f"{before}{BEGIN}\n{rows}\n{END}{after}"


def run(root: Path, faults: Mapping[int, str], *, check: bool) -> list[str]:
    """Writes the table of the document in `root` (with `check`: compares it) and returns what is wrong, a sentence each."""
    path = root / DOCUMENT
    try:
        markers = all_markers(root)
        document = path.read_text(encoding="utf-8")
        fresh = with_table(document, table(markers, faults))
    except (FaultTableError, OSError, SyntaxError) as error:
        return [str(error)]
    found = problems(markers, faults)
    if check and fresh != document:
        found.append(f"{DOCUMENT}: the table of faults is not what the tests say: {REMEDY}")
    if not check:
        path.write_text(fresh, encoding="utf-8")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes which test shows which fault into docs/guarantees.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the table is stale")
    found = run(ROOT, FAULTS, check=parser.parse_args().check)
    for sentence in found:
        print(sentence, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
