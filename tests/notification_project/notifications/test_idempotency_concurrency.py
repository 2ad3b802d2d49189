"""Many requests at once with one key: the row's primary key lets one through, with Redis or without it."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections, transaction
from pytest_django import Settings

from notification_project.notifications import idempotency
from notification_project.notifications.models import IdempotencyKey, Notification
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.conftest import URL, Api, forget_redis, new_api
from tests.notification_project.factories import BodyFactory, ago

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("mariadb")]


def at_once(api: Api, many: int, post: Callable[[Api, int], Any]) -> list[Any]:
    """`many` requests that begin together, each in a thread with a database connection of its own."""
    barrier = threading.Barrier(many)

    def request(n: int) -> Any:
        own = Api(api.client, api.key)
        barrier.wait(30)
        try:
            return post(own, n)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(many) as pool:
        return list(pool.map(request, range(many)))


@pytest.mark.fault(5, 7)
@pytest.mark.parametrize("outage", [None, "redis_away"])
def test_fifty_requests_with_one_key_make_one_notification(request: pytest.FixtureRequest, outage: str | None) -> None:
    if outage:
        request.getfixturevalue(outage)
    api, body = new_api(), BodyFactory.build()
    responses = at_once(api, 50, lambda own, _n: own.post(body, key="abc"))
    statuses = Counter(response.status_code for response in responses)
    assert set(statuses) <= {202, 409}, statuses
    accepted = [response for response in responses if response.status_code == 202]
    assert len({response.content for response in accepted}) == 1
    assert sum("Idempotent-Replayed" not in response.headers for response in accepted) == 1
    assert all(response["Retry-After"] == "1" for response in responses if response.status_code == 409)
    assert Notification.objects.count() == OutboxEvent.objects.count() == IdempotencyKey.objects.count() == 1
    assert api.post(body, key="abc").content == accepted[0].content


@pytest.mark.fault(6)
def test_one_of_many_bodies_with_one_key_wins_and_the_others_are_told_so(redis_away: None) -> None:
    api = new_api()
    bodies = [BodyFactory.build(subject=f"subject {n}") for n in range(12)]
    responses = at_once(api, 12, lambda own, n: own.post(bodies[n], key="abc"))
    statuses = Counter(response.status_code for response in responses)
    assert statuses[202] == 1
    assert set(statuses) <= {202, 409, 422}
    assert Notification.objects.count() == OutboxEvent.objects.count() == 1


def test_an_expired_row_is_taken_over_by_one_of_many(redis_away: None) -> None:
    api, body = new_api(), BodyFactory.build()
    first = api.post(body, key="abc")
    IdempotencyKey.objects.update(expires_at=ago(seconds=1))
    responses = at_once(api, 12, lambda own, _n: own.post(body, key="abc"))
    assert {response.status_code for response in responses} <= {202, 409}
    contents = {response.content for response in responses if response.status_code == 202}
    assert len(contents) == 1
    assert contents != {first.content}
    assert Notification.objects.count() == OutboxEvent.objects.count() == 2


def test_concurrent_requests_never_exceed_the_recipients_limit(settings: Settings) -> None:
    settings.RATE_LIMIT_RECIPIENT = "5/h"
    api = new_api()
    responses = at_once(api, 12, lambda own, _n: own.post(BodyFactory.build(recipient="ada@example.com")))
    assert {response.status_code for response in responses} == {202, 429}
    assert Notification.objects.count() <= 5


@pytest.mark.fault(5, 9)
def test_a_second_request_waits_for_the_first_ones_row_and_is_409_at_the_lock_time_out(redis_away: None) -> None:
    api, body = new_api(), BodyFactory.build()
    key = idempotency.key_of("abc", api.client, "POST", URL)
    assert key is not None
    with transaction.atomic():
        row = idempotency.new_row(key, bytes(32), status_code=202, location="", body=b"")
        row.save(force_insert=True)
        with ThreadPoolExecutor(1) as pool:
            response = pool.submit(lambda: at_once(api, 1, lambda own, _n: own.post(body, key="abc"))[0]).result(30)
        transaction.set_rollback(True)
    assert (response.status_code, response["Retry-After"]) == (409, "1")
    assert not Notification.objects.exists()
    assert api.post(body, key="abc").status_code == 202


@pytest.mark.fault(8)
def test_a_request_whose_mark_has_expired_in_mid_flight_is_still_one_notification() -> None:
    api, body = new_api(), BodyFactory.build()

    def post(own: Api, n: int) -> Any:
        forget_redis()  # 30 seconds have gone by, again and again
        return own.post(body, key="abc")

    responses = at_once(api, 10, post)
    assert {response.status_code for response in responses} <= {202, 409}
    assert Notification.objects.count() == 1
