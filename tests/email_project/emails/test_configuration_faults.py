"""Wrong configuration (login, TLS) pauses sending, costs no mail anything, is said, and all goes on by itself when mended."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from email_project.emails import sending as sending_module
from email_project.emails.models import SentEmail
from shared_events.dead_letters.models import DeadLetter
from shared_events.runtime.process_state import StateReport
from tests.email_project.factories import reports, store
from tests.email_project.senders import Sending
from tests.smtp_servers import Certificate, Script, ScriptedSmtpServer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.fault(42)]
Status = SentEmail.Status
MAILS = 20
STATE = ("status", "status_version", "retry_count", "possible_duplicates", "crashes", "lease_token", "data_started_at")
UNTOUCHED = {(Status.PROCESSING, 0, 0, 0, 0, 0, None)}


@dataclass
class Fault:
    """How a server is wrong for the client's configuration at first, and how it is mended."""

    scheme: str
    reason: str
    mend: Callable[[ScriptedSmtpServer, Certificate], None]
    script: Script = field(default_factory=Script)
    tls: Any = "none"


def set_script(script: Script) -> Callable[[ScriptedSmtpServer, Certificate], None]:
    def mend(server: ScriptedSmtpServer, _trusted: Certificate) -> None:
        server.script = script

    return mend


def offer_trusted_tls(server: ScriptedSmtpServer, trusted: Certificate) -> None:
    server.script = Script()
    server.context = trusted.context()
    server.tls = "starttls" if server.tls == "none" else server.tls


FAULTS = {
    "535": Fault("smtp://ada:wrong@", "auth: 5.7.8", set_script(Script(users={"ada": "wrong"})), Script(users={"ada": "right"})),
    "AUTH not offered": Fault("smtp://ada:right@", "auth: auth_not_offered", set_script(Script(users={"ada": "right"}))),
    "530": Fault("smtp://", "mail: 5.7.0", set_script(Script()), Script(users={"ada": "right"})),
    "sender refused": Fault(
        "smtp://", "mail: 5.1.8", set_script(Script()), Script(steps={"mail": ["550 5.1.8 Bad sender's system address"]})
    ),
    "certificate": Fault("smtp+tls://", "starttls: tls_certificate", offer_trusted_tls, tls="starttls"),
    "certificate at once": Fault("smtp+ssl://", "connect: tls_certificate", offer_trusted_tls, tls="tls"),
    "STARTTLS not offered": Fault("smtp+tls://", "starttls: tls_not_offered", offer_trusted_tls),
    "STARTTLS refused": Fault(
        "smtp+tls://", "starttls: 4.7.0", offer_trusted_tls, Script(steps={"starttls": ["454 4.7.0 Not now"]}), "starttls"
    ),
}  # fmt: skip


@dataclass
class Paused:
    """A sender at a server that is wrong for it."""

    fault: Fault
    server: ScriptedSmtpServer
    sending: Sending
    trusted: Certificate

    def run_until_paused(self) -> None:
        self.sending.run_until(lambda: not self.sending.breaker.is_closed and not self.sending.held)

    def run_for_more_probes(self, count: int) -> None:
        wanted = len(self.server.connections) + count
        self.sending.run_until(lambda: len(self.server.connections) >= wanted)
        self.run_until_paused()

    def mend(self) -> None:
        self.fault.mend(self.server, self.trusted)
        self.sending.run_until_settled()


@pytest.fixture(params=FAULTS)
def paused(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Paused]:
    monkeypatch.setattr(sending_module, "CONFIGURATION_HOLD_SECONDS", 0.1)
    fault = FAULTS[request.param]
    trusted, unknown = Certificate.make(tmp_path / "trusted"), Certificate.make(tmp_path / "unknown")
    certificate = None if fault.tls == "none" else unknown
    with ScriptedSmtpServer(fault.script, tls=fault.tls, certificate=certificate) as server:
        sending = Sending(url=f"{fault.scheme}127.0.0.1:{server.port}", ca_file=str(trusted.certificate_path))
        store(MAILS)
        with closing(sending.start()):
            yield Paused(fault, server, sending, trusted)
            server.reset_connections()


def test_it_pauses_says_why_and_goes_on_by_itself_when_mended(
    paused: Paused, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    state = StateReport("consume_events", [paused.sending.breaker])
    paused.run_until_paused()
    paused.run_for_more_probes(4)
    state.write()
    assert set(SentEmail.objects.values_list(*STATE)) == UNTOUCHED
    assert (DeadLetter.objects.count(), len(reports()), paused.server.accepted) == (0, 0, [])
    shown = json.loads(client.get("/health/ready").content)
    assert shown["status"] == "degraded"
    assert [(worker["name"], worker["reason"]) for worker in shown["workers"]] == [("smtp", paused.fault.reason)]
    assert len([line for line in caplog.messages if "circuit open" in line]) == 1
    paused.mend()
    state.write()
    assert set(SentEmail.objects.values_list("status", "retry_count", "possible_duplicates")) == {(Status.SENT, 0, 0)}
    assert (len(paused.server.accepted), DeadLetter.objects.count()) == (MAILS, 0)
    assert json.loads(client.get("/health/ready").content)["workers"] == []
