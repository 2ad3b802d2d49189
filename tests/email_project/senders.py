"""Senders for tests: one that only holds what it is handed, and one that speaks to a scripted server."""

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from email_project.emails.models import SentEmail
from email_project.emails.sender_options import SenderOptions
from email_project.emails.sending import EmailSender
from email_project.emails.settlement import DeliveryPolicy
from email_project.emails.smtp import SmtpServer
from shared_events.runtime.breaker import CircuitBreaker

POLICY = DeliveryPolicy(max_attempts=12, retry_base_seconds=0.02, retry_max_seconds=0.02, max_resends=10)
"""Retries come at once, so that a test sees a mail's whole way."""


class Sending:
    """A sender on `port`, whose rounds run in the test's own thread."""

    def __init__(
        self,
        port: int = 9,
        *,
        policy: DeliveryPolicy = POLICY,
        connections: int = 2,
        lease_seconds: float = 60,
        grace_seconds: float = 5,
        polls: bool = True,
        probe_seconds: float = 0.1,
        url: str = "",
        **server: Any,
    ) -> None:
        quick = {"timeout_seconds": 5.0, "reply_timeout_seconds": 5.0, "local_hostname": "client.test"}
        self.breaker = CircuitBreaker("smtp", first_seconds=probe_seconds, maximum_seconds=2 * probe_seconds)
        self.rings = 0
        self.sender = EmailSender(
            SmtpServer.from_url(url or f"smtp://127.0.0.1:{port}", **quick | server),
            policy,
            SenderOptions(
                connections=connections,
                lease_seconds=lease_seconds,
                poll_seconds=0.01 if polls else None,
                grace_seconds=grace_seconds,
            ),
            ring=self.ring,
            breaker=self.breaker,
        )
        self.is_started = False

    def ring(self) -> None:
        self.rings += 1

    @property
    def held(self) -> set[UUID]:
        return set(self.sender._held)

    def start(self) -> "Sending":
        self.sender.start()
        self.is_started = True
        return self

    def run_until(self, holds: Callable[[], object], *, seconds: float = 30) -> None:
        """Rounds of the bookkeeper until something holds."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"not within {seconds} s"
            self.sender.step(0.02)

    def run_until_settled(self, seconds: float = 30) -> None:
        """Until no mail is due or held."""
        self.run_until(
            lambda: not self.held and not SentEmail.objects.filter(due_at__isnull=False).exists(), seconds=seconds
        )

    def close(self) -> None:
        if self.is_started:
            self.sender.close()


def state(pk: UUID) -> SentEmail:
    mail: SentEmail = SentEmail.objects.get(pk=pk)
    return mail


def status(pk: UUID) -> str:
    return state(pk).status
