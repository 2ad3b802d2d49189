"""What an SMTP answer, or its absence, means for a mail: rule 5 of delivery, as one pure function.

The words are those of RFC 5321 (basic codes) and RFC 3463 (enhanced codes, which win where both are given).
"""

import enum
import re
from dataclasses import dataclass
from typing import Final

from email_project.emails.smtp import Phase, Reply, SmtpFault
from email_project.emails.smtp_dialogue import Digit

MAX_HINT_SECONDS = 86400.0

_ENHANCED_CODE = re.compile(r"(?:^|\(#)([245])\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9.])")
_GREYLISTED = re.compile(r"gr[ae]y-?list", re.IGNORECASE)
_HINT = re.compile(
    r"(?:again|retry|back|wait|gr[ae]y-?listed)\b[^0-9]{0,30}"
    r"\b([0-9]{1,7}) ?(?:(s)(?:ec(?:ond)?s?)?|(m)(?:in(?:ute)?s?)?|(h)(?:r|our)?s?)\b",
    re.IGNORECASE,
)
_CLOCK_HINT = re.compile(r"(?:again|retry|back|wait)\b[^0-9]{0,20}([0-9]{1,2}):([0-9]{2}):([0-9]{2})", re.IGNORECASE)
_SECONDS_OF = {"s": 1, "m": 60, "h": 3600}

_CONFIGURATION_CAUSES = frozenset({"tls_not_offered", "tls_certificate", "auth_not_offered"})
_OPENING = frozenset({Phase.CONNECT, Phase.BANNER, Phase.EHLO})
_HANDED_OVER = frozenset({Phase.BODY, Phase.REPLY})
_LOGIN_CODES = frozenset({530, 535})
_MAILBOX_CODES = frozenset({550, 551, 553})
_STORAGE_EXCEEDED = 552


class Kind(enum.StrEnum):
    SENT = "sent"
    RETRY = "retry"  # message fault, transient
    FAILED = "failed"  # message fault, final
    DEPENDENCY = "dependency"
    CONFIGURATION = "configuration"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one attempt ended.

    `code` is the enhanced code, else the basic code, else our word for the cause. `failure_class`, set for FAILED only,
    is "recipient", "policy" or "size". `hint_seconds` is the wait that the server asked for, at most a day.
    """

    kind: Kind
    phase: Phase
    failure_class: str | None
    code: str
    basic_code: int | None
    enhanced_code: str | None
    reply: str
    hint_seconds: float | None
    greylisted: bool


def accepted(reply: Reply) -> Outcome:
    """The outcome of a mail whose final dot was answered with 2xx."""
    return _answered(Kind.SENT, Phase.REPLY, reply)


def classify(fault: SmtpFault) -> Outcome:
    """The outcome of an attempt that SmtpConnection gave up."""
    reply = fault.reply
    if fault.cause == "smtputf8_not_offered":
        return _unanswered(Kind.FAILED, fault, failure_class="recipient", code="5.6.7")
    if reply is None:
        return _unanswered(_kind_without_reply(fault), fault)
    if fault.cause == "protocol":
        kind = Kind.UNCERTAIN if fault.phase in _HANDED_OVER else Kind.DEPENDENCY
    elif reply.is_closing or fault.phase in _OPENING:
        kind = Kind.DEPENDENCY
    elif fault.phase is Phase.STARTTLS:
        kind = Kind.CONFIGURATION
    elif fault.phase is Phase.AUTH:
        kind = _kind_at_login(reply)
    else:
        kind = _kind_of_refusal(fault.phase, reply)
    return _answered(kind, fault.phase, reply)


def _kind_without_reply(fault: SmtpFault) -> Kind:
    if fault.phase in _HANDED_OVER:
        return Kind.UNCERTAIN
    if fault.cause in _CONFIGURATION_CAUSES:
        return Kind.CONFIGURATION
    return Kind.DEPENDENCY


def _kind_at_login(reply: Reply) -> Kind:
    if reply.digit == Digit.PERMANENT or _enhanced_code(reply) == "5.7.8":
        return Kind.CONFIGURATION
    return Kind.DEPENDENCY


def _kind_of_refusal(phase: Phase, reply: Reply) -> Kind:
    enhanced = _enhanced_code(reply)
    if phase not in _HANDED_OVER and (reply.code in _LOGIN_CODES or enhanced == "5.7.8"):
        return Kind.CONFIGURATION
    if phase is Phase.MAIL and enhanced in ("5.1.7", "5.1.8"):  # the sender's address, which every mail has
        return Kind.CONFIGURATION
    return Kind.RETRY if _is_transient(reply) else Kind.FAILED


def _is_transient(reply: Reply) -> bool:
    enhanced = _enhanced_code(reply)
    if enhanced and not enhanced.startswith("2"):
        return enhanced.startswith("4")
    return reply.digit == Digit.TRANSIENT


def _failure_class(reply: Reply) -> str:
    enhanced = _enhanced_code(reply) or ""
    if enhanced in ("5.3.4", "5.2.3"):
        return "size"
    if enhanced.startswith(("5.1.", "5.2.")) or enhanced == "5.6.7":
        return "recipient"
    if enhanced.startswith("5.7."):
        return "policy"
    if reply.code == _STORAGE_EXCEEDED:
        return "size"
    return "recipient" if reply.code in _MAILBOX_CODES else "policy"


def _enhanced_code(reply: Reply) -> str | None:
    """RFC 2034 puts it in front; qmail and its kin end with "(#5.1.1)"."""
    match = _ENHANCED_CODE.search(reply.text)
    return f"{match[1]}.{match[2]}.{match[3]}" if match else None


def _hint_seconds(text: str) -> float | None:
    if match := _CLOCK_HINT.search(text):
        hours, minutes, seconds = (int(part) for part in match.groups())
        wait = hours * 3600 + minutes * 60 + seconds
    elif match := _HINT.search(text):
        wait = int(match[1]) * _SECONDS_OF[(match[2] or match[3] or match[4]).lower()]
    else:
        return None
    return min(float(wait), MAX_HINT_SECONDS) or None


def _answered(kind: Kind, phase: Phase, reply: Reply) -> Outcome:
    enhanced = _enhanced_code(reply)
    retry = kind is Kind.RETRY
    greylisted = reply.code in (450, 451) and (enhanced == "4.7.1" or bool(_GREYLISTED.search(reply.text)))
    return Outcome(
        kind=kind,
        phase=phase,
        failure_class=_failure_class(reply) if kind is Kind.FAILED else None,
        code=enhanced or str(reply.code),
        basic_code=reply.code,
        enhanced_code=enhanced,
        reply=reply.text,
        hint_seconds=_hint_seconds(reply.text) if retry or kind is Kind.DEPENDENCY else None,
        greylisted=retry and greylisted,
    )


def _unanswered(kind: Kind, fault: SmtpFault, *, failure_class: str | None = None, code: str | None = None) -> Outcome:
    return Outcome(
        kind=kind,
        phase=fault.phase,
        failure_class=failure_class,
        code=code or fault.cause,
        basic_code=None,
        enhanced_code=None,
        reply="",
        hint_seconds=None,
        greylisted=False,
    )


def unspoken(kind: Kind, phase: Phase, code: str, failure_class: str | None = None) -> Outcome:
    """An outcome that no server spoke."""
    return Outcome(
        kind=kind,
        phase=phase,
        failure_class=failure_class,
        code=code,
        basic_code=None,
        enhanced_code=None,
        reply="",
        hint_seconds=None,
        greylisted=False,
    )


FOUND_MARKED: Final = unspoken(Kind.UNCERTAIN, Phase.DATA, "crash")
UNANSWERED_AT_STOP: Final = unspoken(Kind.UNCERTAIN, Phase.REPLY, "stopped")
EXPIRED: Final = unspoken(Kind.FAILED, Phase.RCPT, "expired", "expired")
POISON: Final = unspoken(Kind.FAILED, Phase.CONNECT, "poison", "poison")
