"""Rules 5 and 6 of delivery as a pure function: where each outcome takes a mail."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from email_project.emails.delivery import Delivery
from email_project.emails.outcomes import Kind
from email_project.emails.settlement import (
    GREYLIST_SECONDS,
    POSTPONE_SECONDS,
    Decision,
    DeliveryPolicy,
    Transition,
    decide,
)
from email_project.emails.smtp import Phase
from tests.email_project.factories import POLICY, ago, ahead, attempts, delivery, result


def decided(
    kind: Kind | None, mail: Delivery | None = None, policy: DeliveryPolicy = POLICY, **fields: Any
) -> Decision:
    return decide(result(mail or delivery(), kind, **fields), policy)


@pytest.mark.parametrize(
    ("kind", "transition"),
    [
        (None, Transition.RELEASE),
        (Kind.DEPENDENCY, Transition.RELEASE),
        (Kind.CONFIGURATION, Transition.RELEASE),
        (Kind.SENT, Transition.SEND),
        (Kind.RETRY, Transition.RETRY),
        (Kind.FAILED, Transition.FAIL),
        (Kind.UNCERTAIN, Transition.RESEND),
    ],
)
def test_each_outcome_has_its_transition(kind: Kind | None, transition: Transition) -> None:
    assert decided(kind).transition is transition


@pytest.mark.fault(41)
@pytest.mark.parametrize("kind", [None, Kind.DEPENDENCY, Kind.CONFIGURATION])
def test_the_servers_own_faults_consume_nothing_however_often(kind: Kind | None) -> None:
    spent = delivery(retry_count=11, possible_duplicates=10, crashes=19, send_before=ago(hours=1))
    assert decided(kind, spent).transition is Transition.RELEASE


@pytest.mark.parametrize("phase", Phase)
def test_a_mail_that_a_server_gave_up_on_lets_the_others_go_first(phase: Phase) -> None:
    decision = decided(Kind.DEPENDENCY, phase=phase)
    amid_its_transaction = phase not in (Phase.CONNECT, Phase.BANNER, Phase.EHLO, Phase.STARTTLS, Phase.AUTH)
    assert decision.transition is (Transition.POSTPONE if amid_its_transaction else Transition.RELEASE)
    assert POSTPONE_SECONDS / 2 * amid_its_transaction <= decision.wait_seconds <= POSTPONE_SECONDS


def test_250_is_sent_whatever_came_before() -> None:
    spent = delivery(retry_count=99, possible_duplicates=99, send_before=ago(hours=1), on_uncertain="hold")
    assert decided(Kind.SENT, spent).transition is Transition.SEND


@pytest.mark.fault(43)
@pytest.mark.parametrize("retry_count", range(11))
def test_refusals_within_the_budget_are_tried_again_after_the_nth_wait(retry_count: int) -> None:
    decision = decided(Kind.RETRY, delivery(retry_count=retry_count))
    whole = min(3600, 5 * 3**retry_count)
    assert decision.transition is Transition.RETRY
    assert whole / 2 <= decision.wait_seconds <= whole


@pytest.mark.fault(43)
def test_the_last_refusal_is_final_and_says_what_the_server_said() -> None:
    decision = decided(Kind.RETRY, delivery(retry_count=11))
    assert decision.transition is Transition.FAIL
    assert decision.failure is not None
    failure = decision.failure
    assert (failure.failure_class, failure.code, failure.detail) == ("exhausted", "4.3.0", "4.3.0 Try again later")


def test_the_budget_of_refusals_is_not_spent_by_uncertain_attempts() -> None:
    assert decided(Kind.RETRY, delivery(retry_count=0, possible_duplicates=9)).transition is Transition.RETRY


@pytest.mark.fault(44)
def test_a_final_refusal_keeps_its_class_and_code() -> None:
    failure = decided(Kind.FAILED, failure_class="size", code="5.3.4").failure
    assert failure is not None
    assert (failure.failure_class, failure.code) == ("size", "5.3.4")


@pytest.mark.fault(43)
def test_the_servers_hint_is_honoured_up_to_the_maximum() -> None:
    assert decided(Kind.RETRY, hint_seconds=1800.0).wait_seconds == 1800
    assert decided(Kind.RETRY, hint_seconds=86400.0).wait_seconds == 3600
    assert decided(Kind.RETRY, hint_seconds=0.1).wait_seconds >= 2.5


@pytest.mark.fault(43)
def test_the_first_greylisting_waits_five_minutes_whatever_the_maximum() -> None:
    quick = DeliveryPolicy(max_attempts=12, retry_base_seconds=1, retry_max_seconds=2, max_resends=10)
    assert decided(Kind.RETRY, policy=quick, greylisted=True).wait_seconds == GREYLIST_SECONDS == 300


def test_a_later_greylisting_waits_as_any_refusal() -> None:
    greylisted_before = delivery(attempts=attempts(1, enhanced_code="4.7.1"), retry_count=1)
    assert decided(Kind.RETRY, greylisted_before, greylisted=True).wait_seconds <= 15


def test_a_retry_comes_no_later_than_the_deadline() -> None:
    decision = decided(Kind.RETRY, delivery(send_before=ahead(seconds=60)), greylisted=True)
    assert decision.transition is Transition.RETRY
    assert 55 < decision.wait_seconds <= 60


@pytest.mark.fault(43, 49)
def test_a_refusal_past_the_deadline_is_expired() -> None:
    failure = decided(Kind.RETRY, delivery(send_before=ago(seconds=1))).failure
    assert failure is not None
    assert (failure.failure_class, failure.code) == ("expired", "expired")


@pytest.mark.fault(49)
def test_what_expired_is_failed() -> None:
    failure = decided(Kind.FAILED, failure_class="expired", code="expired", basic_code=None).failure
    assert failure is not None
    assert (failure.failure_class, failure.code) == ("expired", "expired")


@pytest.mark.fault(49)
def test_what_expired_and_may_have_arrived_before_is_held() -> None:
    mail = delivery(possible_duplicates=1)
    assert decided(Kind.FAILED, mail, failure_class="expired", code="expired").transition is Transition.HOLD


def test_uncertain_waits_as_the_retry_of_its_number() -> None:
    decision = decided(Kind.UNCERTAIN, delivery(retry_count=1, possible_duplicates=2))
    assert 5 * 27 / 2 <= decision.wait_seconds <= 5 * 27


@pytest.mark.parametrize(
    "fields",
    [
        {"on_uncertain": "hold"},
        {"possible_duplicates": 10},
        {"send_before": ahead(seconds=1)},
        {"send_before": ago(seconds=1)},
    ],
    ids=["by its policy", "too many resends", "no time to send again", "past its deadline"],
)
def test_uncertain_is_held(fields: dict[str, Any]) -> None:
    assert decided(Kind.UNCERTAIN, delivery(**fields)).transition is Transition.HOLD


def test_uncertain_is_sent_again_up_to_the_maximum_of_resends() -> None:
    assert decided(Kind.UNCERTAIN, delivery(possible_duplicates=9)).transition is Transition.RESEND
    never = DeliveryPolicy(max_attempts=12, retry_base_seconds=5, retry_max_seconds=3600, max_resends=0)
    assert decided(Kind.UNCERTAIN, policy=never).transition is Transition.HOLD


@pytest.mark.parametrize(("kind", "is_refusal"), [(Kind.FAILED, True), (Kind.RETRY, True), (None, False)])
def test_a_refusal_is_what_the_server_said(kind: Kind | None, *, is_refusal: bool) -> None:
    assert decided(kind).is_refusal is is_refusal


def test_what_no_server_said_is_no_refusal() -> None:
    assert not decided(Kind.FAILED, failure_class="expired", code="expired", basic_code=None).is_refusal


@given(
    kind=st.none() | st.sampled_from(Kind),
    retry_count=st.integers(0, 40),
    possible_duplicates=st.integers(0, 40),
    on_uncertain=st.sampled_from(["resend", "hold"]),
    seconds_left=st.none() | st.floats(-1e6, 1e6),
    hint=st.none() | st.floats(0, 86400),
    greylisted=st.booleans(),
)
def test_every_decision_is_whole(
    *,
    kind: Kind | None,
    retry_count: int,
    possible_duplicates: int,
    on_uncertain: str,
    seconds_left: float | None,
    hint: float | None,
    greylisted: bool,
) -> None:
    mail = delivery(
        retry_count=retry_count,
        possible_duplicates=possible_duplicates,
        on_uncertain=on_uncertain,
        send_before=None if seconds_left is None else ahead(seconds=seconds_left),
    )
    decision = decided(kind, mail, hint_seconds=hint, greylisted=greylisted)
    assert (decision.failure is not None) == (decision.transition is Transition.FAIL)
    assert 0 <= decision.wait_seconds <= 3600
    if kind is Kind.UNCERTAIN:
        assert decision.transition in (Transition.RESEND, Transition.HOLD)
    if on_uncertain == "hold":
        assert decision.transition is not Transition.RESEND
