from pathlib import Path

import pytest

from manage_scripts.pytest_groups import GROUPS, Group, GroupResult, PytestRuns, count, select_groups
from manage_scripts.test import parse, summary


@pytest.fixture
def runs(tmp_path: Path) -> PytestRuns:
    """Runs in a root with four tests: one passes, one fails, one breaks in its set-up, one is skipped."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_all.py").write_text(
        "import pytest\n"
        "def test_passes(): pass\n"
        "def test_fails(): assert False\n"
        "def test_has_no_such_fixture(missing): pass\n"
        "@pytest.mark.skip\n"
        "def test_is_skipped(): pass\n"
    )
    (tmp_path / "results").mkdir()
    return PytestRuns(tmp_path, tmp_path / "results", ["-p", "no:django"])


def group(directory: str, *, name: str = "one") -> Group:
    return Group(name=name, directories=(directory,), arguments=())


def test_a_group_counts_its_tests(runs: PytestRuns) -> None:
    result = runs.run(group("tests"), {})

    assert (result.passed, result.failed, result.skipped) == (1, 2, 1)


def test_a_group_that_collects_nothing_has_failed(runs: PytestRuns) -> None:
    result = runs.run(group("results"), {})

    assert (result.passed, result.failed) == (0, 1)


def test_groups_that_run_at_the_same_time_keep_their_order(runs: PytestRuns) -> None:
    groups = [group("tests", name=name) for name in ("a", "b", "c")]

    results = runs.run_pairwise(groups, [{}, {}, {}])

    assert [result.group for result in results] == ["a", "b", "c"]


def test_a_report_that_was_cut_short_is_a_failure(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text("<testsuites><testsuite tests='3'")

    assert count("one", report, 139, 1.0).failed == 1


def test_the_summary_ends_with_the_line_that_counts_everything() -> None:
    results = [GroupResult("a", 5, 0, 1, 2.5), GroupResult("b", 7, 2, 0, 30.0)]

    assert summary(results)[-1] == "12 passed, 2 failed, 1 skipped"
    assert summary([])[-1] == "0 passed, 0 failed, 0 skipped"


def test_fast_leaves_end_to_end_out_and_only_takes_one_group() -> None:
    assert {group.name for group in GROUPS} - {group.name for group in select_groups(None, fast=True)} == {"end_to_end"}
    assert [group.name for group in select_groups("end_to_end", fast=False)] == ["end_to_end"]


def test_what_follows_two_dashes_is_for_pytest() -> None:
    options = parse(["--fast", "--", "-k", "relay", "--", "-x"])

    assert options.fast
    assert options.pytest_arguments == ["-k", "relay", "--", "-x"]


def test_an_unknown_group_is_refused_with_the_names_of_the_groups(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--only", "nonsense"])

    assert "unit notification sqlite" in capsys.readouterr().err


def test_no_two_groups_share_a_redis_database() -> None:
    assert len({group.redis_database for group in GROUPS}) == len(GROUPS)
