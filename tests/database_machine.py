"""What the stateful tests share: hypothesis draws the steps, the database is real."""

from typing import Any

from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

STEPS = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
"""A failure prints its shortest sequence of steps, and the line that repeats it."""


class DatabaseMachine(RuleBasedStateMachine):
    """Each example begins and ends on empty tables: it is rolled back. Belongs into a test with `django_db`."""

    def __init__(self) -> None:
        super().__init__()
        self._example = transaction.atomic()
        self._example.__enter__()

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self._example.__exit__(None, None, None)


def run_machine(machine: type[DatabaseMachine], **options: Any) -> None:
    """Raises what an example raises, with its steps."""
    run_state_machine_as_test(machine, settings=settings(STEPS, **options))
