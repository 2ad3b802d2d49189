"""The command create_topics: wrong numbers are refused before Kafka is asked."""

import re

import pytest
from django.core.management import CommandError, call_command


@pytest.mark.parametrize("option", ["--partitions", "--replication-factor"])
@pytest.mark.parametrize("value", [0, -2])
def test_a_number_below_one_is_refused_with_a_remedy(option: str, value: int) -> None:
    words = f"{option} {value} is not above 0: give a number from 1 on, or leave it out for the broker's own"
    with pytest.raises(CommandError, match=re.escape(words)):
        call_command("create_topics", f"{option}={value}")
