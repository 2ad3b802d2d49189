import re
from pathlib import Path

import pytest

from manage_scripts.bootstrap import ROOT
from manage_scripts.mutations import (
    PATCHES,
    Mutation,
    MutationError,
    Runner,
    Verdict,
    apply,
    broken,
    copy_tree,
    judge_all,
    read_mutations,
    table,
)
from manage_scripts.pytest_groups import WITHOUT_DJANGO

HEAD = "A rule is broken.\n\nRed: tests/test_one.py\nSettings: email\n\n"
DIFF = "--- a/one.py\n+++ b/one.py\n@@ -1 +1 @@\n-ONE = 1\n+ONE = {value}\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A module, and a test that is green as long as ONE is 1."""
    tree = tmp_path / "tree"
    (tree / "tests").mkdir(parents=True)
    (tree / "one.py").write_text("ONE = 1\n")
    (tree / "tests" / "test_one.py").write_text("import one\n\n\ndef test_one():\n    assert one.ONE == 1\n")
    return tree


def mutation(tmp_path: Path, value: str) -> Mutation:
    path = tmp_path / "01-one.patch"
    path.write_text(HEAD + DIFF.format(value=value))
    return Mutation.read(path)


def runner(tree: Path) -> Runner:
    return Runner(tree, WITHOUT_DJANGO, {})


@pytest.mark.parametrize("patch", sorted(PATCHES.glob("*.patch")), ids=lambda path: path.stem)
def test_every_mutation_applies_to_the_present_code(patch: Path) -> None:
    apply(patch, ROOT, "--check")


@pytest.mark.parametrize("patch", sorted(PATCHES.glob("*.patch")), ids=lambda path: path.stem)
def test_every_mutation_names_tests_that_there_are_and_breaks_product_code_alone(patch: Path) -> None:
    for test in Mutation.read(patch).tests:
        path, _, name = test.partition("::")
        assert not name or f"def {name.partition('[')[0]}(" in (ROOT / path).read_text()
    changed = set(re.findall(r"^\+\+\+ b/(\w+)/", patch.read_text(), re.MULTILINE))
    assert changed <= {"notification_project", "email_project", "shared_events"}


def test_the_mutations_are_numbered_without_a_gap() -> None:
    numbers = [int(found.name.split("-")[0]) for found in read_mutations()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_mutation_that_a_test_sees_is_red_and_leaves_the_tree_as_it_was(tree: Path, tmp_path: Path) -> None:
    (verdict,) = judge_all([mutation(tmp_path, "2")], runner(tree))
    assert (verdict.is_red, verdict.reason) == (True, "assert 2 == 1")
    assert (tree / "one.py").read_text() == "ONE = 1\n"


def test_a_mutation_that_no_test_sees_stays_green(tree: Path, tmp_path: Path) -> None:
    (verdict,) = judge_all([mutation(tmp_path, "True")], runner(tree))
    assert not verdict.is_red


def test_a_mutation_that_cannot_be_imported_is_no_verdict(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(MutationError, match="exit code"):
        judge_all([mutation(tmp_path, "missing")], runner(tree))


def test_tests_that_fail_without_a_mutation_prove_nothing(tree: Path, tmp_path: Path) -> None:
    (tree / "one.py").write_text("ONE = 3\n")
    with pytest.raises(MutationError, match="not green without"):
        judge_all([mutation(tmp_path, "2")], runner(tree))


def test_a_mutation_that_drifted_says_that_it_is_to_be_rebased(tree: Path, tmp_path: Path) -> None:
    (tree / "one.py").write_text("ONE = 3\n")
    with pytest.raises(MutationError, match="rebase"), broken(tree, mutation(tmp_path, "2")):
        pass


@pytest.mark.parametrize("head", ["", "A rule.\n\nSettings: email\n", "A rule.\n\nRed: tests\nSettings: none\n"])
def test_a_patch_without_its_head_is_refused_with_what_is_missing(tmp_path: Path, head: str) -> None:
    (tmp_path / "01-one.patch").write_text(head + DIFF.format(value="2"))
    with pytest.raises(MutationError, match="Red: TESTS"):
        read_mutations(tmp_path)


def test_the_copy_of_the_tree_has_its_files_and_none_that_git_ignores(tmp_path: Path) -> None:
    copy = copy_tree(tmp_path)
    assert (copy / "manage_scripts" / "mutations.py").read_text() == (ROOT / "manage_scripts/mutations.py").read_text()
    assert not (copy / ".venv").exists()
    assert not (copy / ".git").exists()


def test_the_table_ends_with_how_many_turn_red(tmp_path: Path) -> None:
    one = mutation(tmp_path, "2")
    lines = table([Verdict(one, True, 1.0, "assert 2 == 1"), Verdict(one, False, 2.0)])
    assert lines[0].startswith("red     1.0 s  01-one: A rule is broken.")
    assert lines[-1] == "1 of 2 mutations turn their tests red"
