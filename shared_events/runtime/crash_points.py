"""Places where a proof may end a process as a power cut does: on both sides of every commit, send and acknowledgement.

`CRASH_POINT=mail_settle_uncommitted` ends the process (SIGKILL to itself) when it comes to that place, `CRASH_POINT=dot_sent:3` when it
does for the third time. Where the variable is not set, `reach` compares one global with None and returns.
"""

import enum
import os
import signal
import threading
from dataclasses import dataclass, field

from django.core.exceptions import ImproperlyConfigured


class CrashPoint(enum.StrEnum):
    """Named by what is true when the process ends there."""

    ACCEPTANCE_UNCOMMITTED = enum.auto()
    ACCEPTANCE_COMMITTED = enum.auto()
    ANSWER_CACHED = enum.auto()
    CLAIM_UNCOMMITTED = enum.auto()
    CLAIM_COMMITTED = enum.auto()
    PRODUCED = enum.auto()  # handed to the client library, acknowledged or not
    ACKNOWLEDGED = enum.auto()
    OUTBOX_SETTLE_UNCOMMITTED = enum.auto()
    OUTBOX_SETTLE_COMMITTED = enum.auto()
    RECORDS_TAKEN = enum.auto()
    INTAKE_UNCOMMITTED = enum.auto()
    INTAKE_COMMITTED = enum.auto()
    STATUS_UNCOMMITTED = enum.auto()
    STATUS_COMMITTED = enum.auto()
    OFFSETS_COMMITTED = enum.auto()
    RECIPIENT_ACCEPTED = enum.auto()  # DATA is next
    CONTENT_INVITED = enum.auto()  # 354 has come
    DOT_SENT = enum.auto()
    MAIL_ACCEPTED = enum.auto()  # 250 has come
    MAIL_SETTLE_UNCOMMITTED = enum.auto()
    MAIL_SETTLE_COMMITTED = enum.auto()
    RECONCILE_UNCOMMITTED = enum.auto()
    RECONCILE_COMMITTED = enum.auto()
    REPLAY_UNCOMMITTED = enum.auto()
    REPLAY_COMMITTED = enum.auto()


@dataclass(slots=True)
class _Armed:
    point: CrashPoint
    passes_left: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self) -> None:
        with self.lock:
            self.passes_left -= 1
            if self.passes_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


_armed: _Armed | None = None


def reach(point: CrashPoint) -> None:
    """Says that the process is at `point`. Does not return where that one is armed and its time has come."""
    if _armed is not None and _armed.point is point:
        _armed.count()


def arm(text: str) -> None:
    """Arms what CRASH_POINT says, `name` or `name:n`; the empty text arms nothing. ImproperlyConfigured for any other."""
    global _armed  # noqa: PLW0603 (one process, one point: read at every place)
    name, _, number = text.partition(":")
    if not text:
        _armed = None
        return
    if name not in {*CrashPoint} or not (number or "1").isdigit() or int(number or "1") < 1:
        raise ImproperlyConfigured(
            f"CRASH_POINT={text!r} is none: unset it (it is for proofs alone), or set a name, or name:n, of {', '.join(CrashPoint)}"
        )
    _armed = _Armed(CrashPoint(name), int(number or "1"))
