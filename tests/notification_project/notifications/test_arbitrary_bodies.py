"""Whatever is sent: never a 5xx, and never half a notification."""

import json
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notification_project.notifications.models import IdempotencyKey, Notification
from shared_events.dead_letters.models import DeadLetter
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.conftest import URL, Api

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=40)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
TIMES = st.datetimes().map(lambda time: time.isoformat() + "Z")
ADDRESSES = st.emails() | st.just("ada@example.com")
NEARLY = st.fixed_dictionaries(
    {"recipient": ADDRESSES | JSON, "subject": st.text() | JSON, "message": st.text() | JSON},
    optional={
        "html": st.text() | JSON, "reply_to": ADDRESSES | JSON, "client_reference": st.text(max_size=130) | JSON,
        "metadata": st.dictionaries(st.text(max_size=70), st.text() | SCALARS, max_size=22) | JSON,
        "send_after": TIMES | JSON, "send_before": TIMES | JSON, "on_uncertain": st.sampled_from(["resend", "hold"]) | JSON,
    },
)  # fmt: skip
KEYS = st.none() | st.text(st.characters(max_codepoint=255), max_size=260)
thorough = settings(
    max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def unlimited(settings: Any) -> None:
    settings.RATE_LIMIT_CLIENT = settings.RATE_LIMIT_RECIPIENT = "0"


def rows() -> tuple[int, ...]:
    return tuple(model.objects.count() for model in (Notification, OutboxEvent, IdempotencyKey, DeadLetter))


def assert_whole_or_nothing(api: Api, body: Any, *, path: str = URL, key: str | None = None, items: int = 1) -> None:
    before = rows()
    headers = {} if key is None else {"HTTP_IDEMPOTENCY_KEY": key}
    response = api.post(body, path=path, **headers)
    assert response.status_code < 500, response.content
    if response.status_code == 202 and "Idempotent-Replayed" not in response.headers:
        with_key = int(key is not None)
        assert rows() == (before[0] + items, before[1] + items, before[2] + with_key, before[3])
    else:
        assert rows() == before
    if response.status_code != 202:
        assert response.status_code in {400, 413, 422}
        assert response["Content-Type"] == "application/problem+json"
        assert response.json()["request_id"]


@thorough
@given(body=JSON | NEARLY, key=KEYS)
def test_arbitrary_json_is_whole_or_nothing(api: Api, unlimited: None, body: Any, key: str | None) -> None:
    assert_whole_or_nothing(api, json.dumps(body), key=key)


@thorough
@given(body=st.binary(max_size=200) | st.text(st.characters(exclude_categories=["Cs"])).map(str.encode))
def test_arbitrary_bytes_are_whole_or_nothing(api: Api, unlimited: None, body: bytes) -> None:
    assert_whole_or_nothing(api, body)


@thorough
@given(items=JSON | st.lists(NEARLY | JSON, max_size=3))
def test_arbitrary_batches_are_whole_or_nothing(api: Api, unlimited: None, items: Any) -> None:
    many = len(items) if isinstance(items, list) else 0
    assert_whole_or_nothing(api, json.dumps({"notifications": items}), path=f"{URL}/batch", items=many)


@thorough
@given(query=st.dictionaries(
    st.sampled_from(["status", "recipient", "client_reference", "created_from", "created_to", "limit", "cursor", "format"]) | st.text(),
    st.text() | TIMES | st.integers().map(str), max_size=3,
))  # fmt: skip
def test_arbitrary_queries_are_200_or_400(api: Api, query: dict[str, str]) -> None:
    encoded = "&".join(
        f"{quote_plus(name, errors='replace')}={quote_plus(value, errors='replace')}" for name, value in query.items()
    )
    assert api.get(f"{URL}?{encoded}").status_code in {200, 400, 404}
