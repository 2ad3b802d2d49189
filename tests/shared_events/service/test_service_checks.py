"""The shared system checks refuse only what contradicts itself."""

import pytest
from django.core.checks import run_checks
from pytest_django import Settings


@pytest.mark.fault(18)
@pytest.mark.parametrize(
    ("values", "id_", "named"),
    [
        ({"OUTBOX_LEASE_SECONDS": 30, "KAFKA_MESSAGE_TIMEOUT_SECONDS": 30}, "outbox.E001", "OUTBOX_LEASE_SECONDS=30"),
        ({"OUTBOX_LEASE_SECONDS": 5}, "outbox.E001", "KAFKA_MESSAGE_TIMEOUT_SECONDS=30"),
        ({"OUTBOX_RETRY_BASE_SECONDS": 301}, "outbox.E002", "OUTBOX_RETRY_BASE_SECONDS=301 is above OUTBOX_RETRY_MAX_SECONDS=300"),
    ],
)  # fmt: skip
def test_a_contradiction_is_named_with_its_values_and_a_remedy(
    settings: Settings, values: dict[str, float], id_: str, named: str
) -> None:
    for name, value in values.items():
        setattr(settings, name, value)
    (error,) = run_checks()
    assert error.id == id_
    assert named in error.msg
    assert error.hint


@pytest.mark.parametrize(
    "values",
    [{"OUTBOX_RETRY_BASE_SECONDS": 300}, {"OUTBOX_LEASE_SECONDS": 31}, {"OUTBOX_POLL_SECONDS": 0, "OUTBOX_BATCH": 1},
     {"OUTBOX_LEASE_SECONDS": 1.5, "KAFKA_MESSAGE_TIMEOUT_SECONDS": 1}],
)  # fmt: skip
def test_small_and_equal_values_are_legal(settings: Settings, values: dict[str, float]) -> None:
    for name, value in values.items():
        setattr(settings, name, value)
    assert run_checks() == []


def test_a_deployment_with_an_armed_crash_point_is_refused(settings: Settings) -> None:
    settings.CRASH_POINT = "dot_sent:3"
    found = [error for error in run_checks(include_deployment_checks=True) if error.id == "runtime.E001"]
    assert [error.msg for error in found] == ["CRASH_POINT='dot_sent:3' ends this process at that place"]
    settings.CRASH_POINT = ""
    assert "runtime.E001" not in {error.id for error in run_checks(include_deployment_checks=True)}
