"""The sample notifications, what each must end as, and the client that posts and follows them."""

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from manage_scripts.demo_parts.mailbox import BUSY_ANSWERS, Mailbox

NOTIFICATIONS = "/api/v1/notifications"
SCHEDULED_SECONDS = 4
REQUEST_SECONDS = 5.0

RECEIPT = """\
<div style="font-family: sans-serif; max-width: 30em">
  <h1 style="color: #2f5bd7; font-size: 22px">Thank you, Grace</h1>
  <p>Your order <strong>4711</strong> is on its way.</p>
  <table style="border-collapse: collapse; width: 100%">
    <tr><td style="border-top: 1px solid #ddd; padding: 8px 0">Nanosecond of wire, 30 cm</td>
        <td style="border-top: 1px solid #ddd; text-align: right">12.00 €</td></tr>
  </table>
</div>
"""


class NotAsAgreedError(Exception):
    """A service did not do what its contract says; the text says what it did."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An HTTP answer; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value


class ApiClient:
    """Speaks to the API on 127.0.0.1 with one key; one connection a request."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key

    def get(self, path: str) -> Answer:
        return self._request("GET", path, None, {})

    def post(self, path: str, body: dict[str, Any], *, key: str | None = None) -> Answer:
        headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
        return self._request("POST", path, json.dumps(body).encode(), headers)

    def _request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=REQUEST_SECONDS)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self._key}", **headers})
            response = connection.getresponse()
            return Answer(status=response.status, headers=headers_of(response), body=response.read())
        except (OSError, http.client.HTTPException) as error:
            raise NotAsAgreedError(f"{method} {path} on port {self._port} was not answered: {error!r}") from error
        finally:
            connection.close()


def headers_of(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A notification to post and what it must end as; its mails are found by its recipient, which is its alone."""

    shows: str
    body: dict[str, Any]
    status: str = "SENT"
    failure_class: str | None = None
    attempts: int = 1
    send_after: datetime | None = None

    @property
    def recipient(self) -> str:
        return str(self.body["recipient"])


@dataclass(kw_only=True)
class Followed:
    """A posted sample and how the API showed it last; times are monotonic seconds."""

    sample: Sample
    id: str
    posted_at: float
    view: dict[str, Any]
    finished_at: float | None = None
    complaints: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return (self.finished_at or time.monotonic()) - self.posted_at


def mail(name: str, subject: str, message: str, **more: object) -> dict[str, Any]:
    return {"recipient": f"{name}@example.com", "subject": subject, "message": message, **more}


def singles() -> list[Sample]:
    later = datetime.now(UTC) + timedelta(seconds=SCHEDULED_SECONDS)
    return [
        Sample(shows="plain text", body=mail("ada", "Welcome to NotifyX", "Hello Ada,\n\nyour account is ready.\n")),
        Sample(shows="HTML beside text", body=mail("grace", "Your receipt", "Order 4711: 12.00 €\n", html=RECEIPT)),
        Sample(
            shows="non-ASCII subject",
            body=mail("emmy", "Grüße aus Zürich, ça va? ✓", "Żółć, naïve, Ωμέγα\n"),
        ),
        Sample(
            shows=f"send_after in {SCHEDULED_SECONDS} s",
            body=mail("joan", "Later, as asked", "Not before its time.\n", send_after=later.isoformat()),
            send_after=later,
        ),
        Sample(
            shows="refused with 550",
            body=mail("refused", "Nobody reads this", "The server answers 550 5.1.1.\n"),
            status="FAILED",
            failure_class="recipient",
        ),
        Sample(
            shows=f"busy {BUSY_ANSWERS} times: 451",
            body=mail("busy", "Tried again", "The server answered 451 4.3.0 before.\n"),
            attempts=BUSY_ANSWERS + 1,
        ),
    ]


def doubled() -> Sample:
    return Sample(shows="one key, two POSTs", body=mail("hedy", "Only once", "The second POST changed nothing.\n"))


def batch() -> list[Sample]:
    names = ("alan", "barbara", "edsger")
    return [
        Sample(
            shows=f"batch, {place} of {len(names)}",
            body=mail(name, f"News for {name.title()}", "One POST for all.\n"),
        )
        for place, name in enumerate(names, 1)
    ]


def post_all(client: ApiClient) -> list[Followed]:
    """Post every sample. Raises NotAsAgreedError where an answer differs from the contract."""
    followed = [post(client, sample) for sample in singles()]
    followed.append(post_doubled(client, doubled()))
    followed.extend(post_batch(client, batch()))
    return followed


def post(client: ApiClient, sample: Sample, *, key: str | None = None) -> Followed:
    posted_at = time.monotonic()
    answer = accepted(client.post(NOTIFICATIONS, sample.body, key=key))
    return Followed(sample=sample, id=answer.json()["id"], posted_at=posted_at, view=answer.json())


def post_doubled(client: ApiClient, sample: Sample) -> Followed:
    """Post twice with one Idempotency-Key; the second answer must be the first, byte for byte."""
    key = f"demo-{time.time_ns()}"
    posted_at = time.monotonic()
    first = accepted(client.post(NOTIFICATIONS, sample.body, key=key))
    second = accepted(client.post(NOTIFICATIONS, sample.body, key=key))
    followed = Followed(sample=sample, id=first.json()["id"], posted_at=posted_at, view=first.json())
    if second.headers.get("idempotent-replayed") != "true":
        followed.complaints.append("the second answer has no Idempotent-Replayed: true")
    if second.body != first.body:
        followed.complaints.append("the second answer differs from the first")
    return followed


def post_batch(client: ApiClient, samples: list[Sample]) -> list[Followed]:
    posted_at = time.monotonic()
    answer = accepted(client.post(f"{NOTIFICATIONS}/batch", {"notifications": [sample.body for sample in samples]}))
    items = sorted(answer.json()["notifications"], key=lambda item: int(item["index"]))
    return [
        Followed(sample=sample, id=item["id"], posted_at=posted_at, view=item)
        for sample, item in zip(samples, items, strict=True)
    ]


def accepted(answer: Answer) -> Answer:
    if answer.status != http.HTTPStatus.ACCEPTED:
        raise NotAsAgreedError(
            f"POST was answered {answer.status} instead of 202: {answer.body.decode(errors='replace')[:500]}"
        )
    return answer


def follow(client: ApiClient, followed: Followed) -> None:
    """Ask once how far it is."""
    answer = client.get(f"{NOTIFICATIONS}/{followed.id}")
    if answer.status != http.HTTPStatus.OK:
        said = answer.body.decode(errors="replace")[:500]
        raise NotAsAgreedError(f"GET {NOTIFICATIONS}/{followed.id} was answered {answer.status} instead of 200: {said}")
    followed.view = answer.json()
    if followed.view["final"]:
        followed.finished_at = time.monotonic()


def judge(followed: Followed, mailbox: Mailbox) -> list[str]:
    """What about its end is not as it should be; empty where all is well."""
    sample, view = followed.sample, followed.view
    complaints = list(followed.complaints)
    if followed.finished_at is None:
        complaints.append(f"it is still {view['status']} after {followed.seconds:.0f} s")
    if view["status"] != sample.status:
        complaints.append(f"it ended {view['status']} instead of {sample.status}")
    failure_class = (view.get("failure") or {}).get("class")
    if failure_class != sample.failure_class:
        complaints.append(f"its failure is of class {failure_class} instead of {sample.failure_class}")
    if view.get("attempts") != sample.attempts:
        complaints.append(f"it took {view.get('attempts')} attempts instead of {sample.attempts}")
    mails = mailbox.to(sample.recipient)
    expected = 1 if sample.status == "SENT" else 0
    if len(mails) != expected:
        complaints.append(f"{len(mails)} mails arrived instead of {expected}")
    if sample.send_after and any(arrived.received_at < sample.send_after for arrived in mails):
        complaints.append("its mail arrived before send_after")
    return complaints
