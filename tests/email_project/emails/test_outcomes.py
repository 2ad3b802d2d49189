"""Which answer, at which phase, means what for the mail."""

import pytest

from email_project.emails.outcomes import Kind, accepted, classify
from email_project.emails.smtp import Cause, Phase, Reply, SmtpFault

BEFORE_CONTENT = [phase for phase in Phase if phase not in (Phase.BODY, Phase.REPLY)]
OF_THE_MESSAGE = [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.BODY, Phase.REPLY]


def refusal(phase: Phase, answer: str) -> SmtpFault:
    return SmtpFault(phase=phase, cause="reply", reply=Reply(int(answer[:3]), answer[4:]))


def kind_of(phase: Phase, answer: str) -> Kind:
    return classify(refusal(phase, answer)).kind


@pytest.mark.fault(41)
@pytest.mark.parametrize("cause", ["timeout", "reset", "refused", "unreachable", "dns", "tls_handshake", "protocol"])
@pytest.mark.parametrize("phase", BEFORE_CONTENT)
def test_silence_before_the_content_is_the_servers_fault(phase: Phase, cause: Cause) -> None:
    outcome = classify(SmtpFault(phase=phase, cause=cause))
    assert (outcome.kind, outcome.code, outcome.basic_code) == (Kind.DEPENDENCY, cause, None)


@pytest.mark.fault(38)
@pytest.mark.parametrize("cause", ["timeout", "reset", "protocol"])
@pytest.mark.parametrize("phase", [Phase.BODY, Phase.REPLY])
def test_silence_after_the_content_began_is_uncertain(phase: Phase, cause: Cause) -> None:
    outcome = classify(SmtpFault(phase=phase, cause=cause))
    assert (outcome.kind, outcome.phase, outcome.code) == (Kind.UNCERTAIN, phase, cause)


@pytest.mark.parametrize("phase", OF_THE_MESSAGE)
@pytest.mark.parametrize(
    "answer", ["421 4.3.2 Bye", "450 Later", "530 Log in", "535 5.7.8 Who?", "550 No", "554 5.7.1 Spam"]
)
def test_an_answer_is_never_uncertain(phase: Phase, answer: str) -> None:
    assert kind_of(phase, answer) is not Kind.UNCERTAIN


@pytest.mark.fault(41)
@pytest.mark.parametrize("phase", Phase)
def test_421_is_the_servers_fault_wherever_it_comes(phase: Phase) -> None:
    assert kind_of(phase, "421 4.7.0 Closing") is Kind.DEPENDENCY


@pytest.mark.fault(41)
@pytest.mark.parametrize("phase", [Phase.BANNER, Phase.EHLO])
@pytest.mark.parametrize("answer", ["450 4.3.2 Busy", "554 5.7.1 No service", "502 What?"])
def test_a_refusal_before_the_session_is_the_servers_fault(phase: Phase, answer: str) -> None:
    assert kind_of(phase, answer) is Kind.DEPENDENCY


@pytest.mark.parametrize("cause", ["tls_not_offered", "tls_certificate", "auth_not_offered"])
def test_what_the_server_lacks_is_configuration(cause: Cause) -> None:
    assert classify(SmtpFault(phase=Phase.STARTTLS, cause=cause)).kind is Kind.CONFIGURATION


@pytest.mark.fault(42)
@pytest.mark.parametrize(
    ("phase", "answer"),
    [
        (Phase.STARTTLS, "454 4.7.0 TLS not available"),
        (Phase.STARTTLS, "502 5.5.1 No such command"),
        *((Phase.AUTH, f"{code} No") for code in (504, 530, 534, 535, 538)),
        (Phase.AUTH, "454 5.7.8 Bad credentials"),
        *((phase, "530 5.7.0 Log in first") for phase in (Phase.MAIL, Phase.RCPT, Phase.DATA)),
        *((phase, "535 Log in first") for phase in (Phase.MAIL, Phase.RCPT, Phase.DATA)),
        *((phase, "550 5.7.8 Log in first") for phase in (Phase.MAIL, Phase.RCPT, Phase.DATA)),
        (Phase.MAIL, "501 5.1.7 Bad sender"),
        (Phase.MAIL, "550 5.1.8 No such sender domain"),
    ],
)
def test_what_every_mail_would_meet_is_configuration(phase: Phase, answer: str) -> None:
    assert kind_of(phase, answer) is Kind.CONFIGURATION


def test_a_login_that_fails_for_now_is_the_servers_fault() -> None:
    assert kind_of(Phase.AUTH, "454 4.7.0 Temporary failure") is Kind.DEPENDENCY


@pytest.mark.fault(43)
@pytest.mark.parametrize("phase", OF_THE_MESSAGE)
@pytest.mark.parametrize(
    "answer", ["450 Busy", "451 4.3.0 Later", "452 4.2.2 Full", "452 Full", "550 4.2.2 Full", "552 4.2.2 Full"]
)
def test_a_transient_refusal_is_tried_again(phase: Phase, answer: str) -> None:
    outcome = classify(refusal(phase, answer))
    assert (outcome.kind, outcome.failure_class, outcome.greylisted) == (Kind.RETRY, None, False)


@pytest.mark.fault(44)
@pytest.mark.parametrize("phase", OF_THE_MESSAGE)
@pytest.mark.parametrize(
    ("answer", "failure_class", "code"),
    [
        ("550 5.1.1 No such user", "recipient", "5.1.1"),
        ("550 No such user", "recipient", "550"),
        ("550 5.2.1 Disabled", "recipient", "5.2.1"),
        ("552 5.2.2 Full", "recipient", "5.2.2"),
        ("450 5.1.1 No such user", "recipient", "5.1.1"),
        ("551 User not local", "recipient", "551"),
        ("553 Bad name", "recipient", "553"),
        ("550 2.1.0 Confused", "recipient", "2.1.0"),
        ("553 5.6.7 No SMTPUTF8", "recipient", "5.6.7"),
        ("550 sorry, no mailbox here by that name (#5.1.1)", "recipient", "5.1.1"),
        ("550 5.7.1 Spam", "policy", "5.7.1"),
        ("552 5.7.0 Blocked attachment", "policy", "5.7.0"),
        ("554 Transaction failed", "policy", "554"),
        ("571 Blocked", "policy", "571"),
        ("552 Too large", "size", "552"),
        ("552 5.3.4 Too large", "size", "5.3.4"),
        ("550 5.3.4 Too large", "size", "5.3.4"),
        ("554 5.2.3 Too large for this mailbox", "size", "5.2.3"),
    ],
)
def test_a_permanent_refusal_has_its_class(phase: Phase, answer: str, failure_class: str, code: str) -> None:
    outcome = classify(refusal(phase, answer))
    assert (outcome.kind, outcome.failure_class, outcome.code) == (Kind.FAILED, failure_class, code)
    assert outcome.basic_code == int(answer[:3])


def test_a_mail_that_needs_smtputf8_fails_for_its_recipient() -> None:
    outcome = classify(SmtpFault(phase=Phase.MAIL, cause="smtputf8_not_offered"))
    assert (outcome.kind, outcome.failure_class, outcome.code) == (Kind.FAILED, "recipient", "5.6.7")


@pytest.mark.fault(43)
@pytest.mark.parametrize(
    ("answer", "greylisted"),
    [
        ("450 4.7.1 Come back later", True),
        ("451 4.7.1 Greylisting in action", True),
        ("450 4.2.0 <ada@example.org>: Recipient address rejected: Greylisted", True),
        ("451 4.3.0 Busy", False),
        ("452 4.7.1 Busy", False),
        ("550 5.7.1 No greylisting here, go away", False),
    ],
)
def test_greylisting_is_told_from_other_delays(answer: str, greylisted: bool) -> None:
    assert classify(refusal(Phase.RCPT, answer)).greylisted is greylisted


@pytest.mark.fault(43)
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("4.7.1 Please try again in 5 minutes", 300),
        ("4.7.1 retry after 300 seconds", 300),
        ("4.7.1 Greylisted for 300 seconds", 300),
        ("4.2.0 Greylisted, see http://postgrey.schweikert.ch/help/example.org.html", None),
        ("4.7.1 Greylisting in action, please come back in 00:04:59", 299),
        ("4.7.0 Try again in 1 hour.", 3600),
        ("4.7.0 wait 90s", 90),
        ("4.7.0 Retry in 2min", 120),
        ("4.7.0 try again in 9999999 hours", 86400),
        ("4.7.0 try again in 0 seconds", None),
        ("4.3.2 Try again later", None),
        ("4.3.2 Try again later, host 10.0.0.5 said 7 things", None),
        ("4.3.2 Message 300 seconds old", None),
    ],
)
def test_a_wait_that_the_server_asks_for_is_read(text: str, seconds: float | None) -> None:
    assert classify(refusal(Phase.RCPT, f"451 {text}")).hint_seconds == seconds
    assert classify(refusal(Phase.BANNER, f"421 {text}")).hint_seconds == seconds
    assert classify(refusal(Phase.RCPT, f"550 5.1.1 {text}")).hint_seconds is None


def test_an_answer_out_of_step_is_uncertain_only_after_the_content() -> None:
    for phase, kind in ((Phase.DATA, Kind.DEPENDENCY), (Phase.REPLY, Kind.UNCERTAIN)):
        assert classify(SmtpFault(phase=phase, cause="protocol", reply=Reply(354, "Go on"))).kind is kind


def test_an_accepted_mail_keeps_the_servers_words() -> None:
    outcome = accepted(Reply(250, "2.0.0 Ok: queued as 4ABC"))
    assert (outcome.kind, outcome.phase, outcome.code) == (Kind.SENT, Phase.REPLY, "2.0.0")
    assert (outcome.basic_code, outcome.reply, outcome.failure_class) == (250, "2.0.0 Ok: queued as 4ABC", None)
    assert accepted(Reply(250, "Ok")).code == "250"
