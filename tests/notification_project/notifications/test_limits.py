"""Rate limits: fixed windows per client and per recipient; what was counted for a refused request is taken back."""

import re
from typing import Any

import pytest
import time_machine
from django_redis import get_redis_connection
from pytest_django import Settings

from notification_project.notifications.limits import Rate
from notification_project.notifications.models import IdempotencyKey, Notification
from notification_project.notifications.submission import Acceptance
from tests.notification_project.conftest import Api, forget_redis, pointers
from tests.notification_project.factories import BodyFactory, ago

LIMIT_FIELD = re.compile(r'^"(client|recipient)";r=(\d+);t=(\d+)$')
ADA = "ada@example.com"


def counted(pattern: str) -> list[int]:
    client: Any = get_redis_connection("default")
    return sorted(int(client.get(key)) for key in client.scan_iter(f"notifyx-limit:{pattern}"))


def assert_limited(response: Any, name: str, quota: int, window: int) -> None:
    assert (response.status_code, response.json()["code"]) == (429, "rate-limited")
    assert response["RateLimit-Policy"] == f'"{name}";q={quota};w={window}'
    found = LIMIT_FIELD.match(response["RateLimit"])
    assert found is not None
    assert (found[1], found[2]) == (name, "0")
    assert response["Retry-After"] == found[3]
    assert 0 < int(found[3]) <= window + 1


def test_the_recipients_limit_refuses_one_more_than_the_quota(api: Api, settings: Settings) -> None:
    settings.RATE_LIMIT_RECIPIENT = "2/h"
    lefts = [api.post(BodyFactory.build(recipient=ADA))["RateLimit"].split(";")[1] for _ in range(2)]
    assert lefts == ["r=1", "r=0"]
    assert_limited(api.post(BodyFactory.build(recipient=ADA)), "recipient", 2, 3600)
    assert Notification.objects.count() == 2
    assert api.post(BodyFactory.build(recipient="bob@example.com")).status_code == 202


def test_the_clients_limit_refuses_one_more_than_the_quota(api: Api, other_api: Api, settings: Settings) -> None:
    settings.RATE_LIMIT_CLIENT = "2/h"
    assert [api.post(BodyFactory.build()).status_code for _ in range(2)] == [202, 202]
    assert_limited(api.post(BodyFactory.build()), "client", 2, 3600)
    assert other_api.post(BodyFactory.build()).status_code == 202


def test_the_tightest_limit_is_shown(api: Api, settings: Settings) -> None:
    settings.RATE_LIMIT_CLIENT, settings.RATE_LIMIT_RECIPIENT = "100/h", "10/m"
    assert api.post(BodyFactory.build())["RateLimit-Policy"] == '"recipient";q=10;w=60'
    settings.RATE_LIMIT_CLIENT = "4/h"
    assert api.post(BodyFactory.build())["RateLimit-Policy"] == '"client";q=4;w=3600'


def test_the_spelling_of_an_address_does_not_widen_its_limit(api: Api, settings: Settings) -> None:
    settings.RATE_LIMIT_RECIPIENT = "1/h"
    assert api.post(BodyFactory.build(recipient="ada@example.com")).status_code == 202
    assert api.post(BodyFactory.build(recipient="ADA@Example.COM")).status_code == 429


def test_an_address_is_not_readable_in_redis(api: Api) -> None:
    api.post(BodyFactory.build(recipient=ADA))
    names = list(get_redis_connection("default").scan_iter("*recipient*"))
    assert len(names) == 1
    assert b"ada" not in names[0]


def test_every_count_expires_so_that_a_crash_blocks_nobody_for_ever(api: Api) -> None:
    api.post(BodyFactory.build())
    client: Any = get_redis_connection("default")
    lives = [client.ttl(key) for key in client.scan_iter("notifyx-limit*")]
    assert len(lives) == 2
    assert all(0 < life <= 120 for life in lives)


@pytest.mark.parametrize("limit", ["RATE_LIMIT_CLIENT", "RATE_LIMIT_RECIPIENT"])
def test_a_window_that_has_ended_counts_no_more(api: Api, settings: Settings, limit: str) -> None:
    setattr(settings, limit, "1/m")
    body = BodyFactory.build()
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as traveller:
        assert api.post(body).status_code == 202
        refused = api.post(body)
        assert refused.status_code == 429
        traveller.shift(int(refused["Retry-After"]))
        assert api.post(body).status_code == 202


def test_what_a_refused_request_counted_is_taken_back(api: Api, settings: Settings) -> None:
    settings.RATE_LIMIT_CLIENT, settings.RATE_LIMIT_RECIPIENT = "5/h", "1/h"
    assert api.post(BodyFactory.build(recipient=ADA)).status_code == 202
    assert api.post(BodyFactory.build(recipient=ADA)).status_code == 429
    assert api.post(BodyFactory.build(send_before=ago(hours=1).isoformat())).status_code == 400
    assert counted("recipient:*") == [0, 1]
    assert counted("1:rl:*") == [1]


def test_a_request_over_the_clients_limit_is_taken_back_too(api: Api, settings: Settings) -> None:
    settings.RATE_LIMIT_CLIENT = "1/h"
    assert [api.post(BodyFactory.build()).status_code for _ in range(4)] == [202, 429, 429, 429]
    assert counted("1:rl:*") == [1]
    assert counted("recipient:*") == [1]


def test_redis_that_lost_the_count_meanwhile_is_no_error(
    api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Acceptance, "_refuse_while_outbox_is_old", lambda _self: forget_redis())
    assert api.post(BodyFactory.build(send_before=ago(hours=1).isoformat())).status_code == 400


def test_a_replay_costs_no_quota_and_is_answered_over_the_limit(api: Api, settings: Settings) -> None:
    settings.RATE_LIMIT_CLIENT = settings.RATE_LIMIT_RECIPIENT = "1/h"
    body = BodyFactory.build()
    first = api.post(body, key="abc")
    for redis_forgot_the_answer in (False, True):
        if redis_forgot_the_answer:
            client: Any = get_redis_connection("default")
            client.delete(*client.scan_iter("notifyx:idempotency:*"))
        replay = api.post(body, key="abc")
        assert (replay.status_code, replay.content) == (202, first.content)
        assert "RateLimit" not in replay.headers
    assert api.post({**body, "subject": "another"}, key="abc").status_code == 422
    assert counted("1:rl:*") == [1]
    assert counted("recipient:*") == [1]


@pytest.mark.fault(11)
def test_a_limited_request_burns_no_key(api: Api, settings: Settings) -> None:
    settings.RATE_LIMIT_RECIPIENT = "1/h"
    api.post(BodyFactory.build(recipient=ADA))
    body = BodyFactory.build(recipient=ADA)
    assert api.post(body, key="abc").status_code == 429
    assert not IdempotencyKey.objects.exists()
    settings.RATE_LIMIT_RECIPIENT = "2/h"
    forget_redis()
    assert api.post(body, key="abc").status_code == 202


def test_zero_switches_a_limit_off(api: Api, settings: Settings) -> None:
    settings.RATE_LIMIT_CLIENT = settings.RATE_LIMIT_RECIPIENT = "0"
    accepted = [api.post(BodyFactory.build(recipient=ADA)) for _ in range(3)]
    assert {response.status_code for response in accepted} == {202}
    assert not any("RateLimit" in response.headers for response in accepted)
    assert counted("*") == []


@pytest.mark.fault(7)
@pytest.mark.parametrize("outage", ["redis_away", "silent_redis"])
def test_without_redis_the_limits_are_open(
    api: Api, settings: Settings, outage: str, request: pytest.FixtureRequest
) -> None:
    settings.RATE_LIMIT_CLIENT = settings.RATE_LIMIT_RECIPIENT = "1/h"
    request.getfixturevalue(outage)
    assert [api.post(BodyFactory.build(recipient=ADA)).status_code for _ in range(3)] == [202, 202, 202]


def test_a_batch_is_one_request_and_each_item_one_mail(api: Api, settings: Settings) -> None:
    settings.RATE_LIMIT_CLIENT, settings.RATE_LIMIT_RECIPIENT = "5/h", "3/h"
    assert api.batch(*[BodyFactory.build(recipient=ADA) for _ in range(3)], BodyFactory.build()).status_code == 202
    assert counted("1:rl:*") == [1]
    assert counted("recipient:*") == [1, 3]


def test_a_batch_over_a_limit_says_which_items_and_stores_nothing(api: Api, settings: Settings) -> None:
    settings.RATE_LIMIT_RECIPIENT = "2/h"
    api.post(BodyFactory.build(recipient=ADA))
    addresses = [ADA, "bob@example.com", "ADA@example.com", "bob@example.com", ADA]
    refused = api.batch(*[BodyFactory.build(recipient=address) for address in addresses])
    assert_limited(refused, "recipient", 2, 3600)
    assert sorted(pointers(refused)) == ["/notifications/2/recipient", "/notifications/4/recipient"]
    assert Notification.objects.count() == 1
    assert counted("recipient:*") == [0, 1]


def test_a_batch_of_one_over_a_limit_has_its_pointer_too(api: Api, settings: Settings) -> None:
    settings.RATE_LIMIT_RECIPIENT = "1/h"
    api.post(BodyFactory.build(recipient=ADA))
    assert sorted(pointers(api.batch(BodyFactory.build(recipient=ADA)))) == ["/notifications/0/recipient"]
    assert "errors" not in api.post(BodyFactory.build(recipient=ADA)).json()


@pytest.mark.parametrize(
    ("text", "rate"),
    [("600/m", Rate(600, 60)), ("10/s", Rate(10, 1)), ("5/10s", Rate(5, 10)), ("1/2h", Rate(1, 7200)), ("9/d", Rate(9, 86_400)),
     ("0", None)],
)  # fmt: skip
def test_a_rate_is_read(text: str, rate: Rate | None) -> None:
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    "text", ["", "x", "600", "600/", "0/m", "-1/m", "600/w", "1/m/s", "1.5/m", "1/0m", "1/ m", "\uff11/m", "1/m\n"]
)
def test_what_is_no_rate_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is no rate: write 0, or a number")):
        Rate.parse(text)
