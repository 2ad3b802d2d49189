"""GET /notifications: filters and the keyset cursor."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from shared_events.contracts.events import new_id
from tests.notification_project.conftest import URL, Api, pointers
from tests.notification_project.factories import BodyFactory, NotificationFactory


def ids(api: Api, **parameters: Any) -> list[str]:
    response = api.get(f"{URL}?{urlencode(parameters)}")
    assert response.status_code == 200, response.content
    return [row["id"] for row in response.json()["results"]]


def make(api: Api, many: int, **fields: Any) -> list[str]:
    """Ids, newest first."""
    return [str(row.pk) for row in NotificationFactory.create_batch(many, client=api.client, **fields)][::-1]


def test_the_list_is_the_clients_own_newest_first(api: Api, other_api: Api) -> None:
    own = make(api, 3)
    make(other_api, 2)
    assert ids(api) == own


def test_a_row_of_the_list_is_what_get_shows(api: Api) -> None:
    accepted = api.post(BodyFactory.build(client_reference="r")).json()
    assert api.get().json() == {"results": [accepted], "next": None}


@pytest.mark.parametrize("many", [0, 1, 6, 7, 8])
def test_the_cursor_walks_all_rows_once_and_in_order(api: Api, many: int) -> None:
    made = make(api, many)
    walked: list[str] = []
    parameters: dict[str, Any] = {"limit": 3}
    while True:
        page = api.get(f"{URL}?{urlencode(parameters)}").json()
        walked += [row["id"] for row in page["results"]]
        assert len(page["results"]) <= 3
        if page["next"] is None:
            break
        parameters["cursor"] = page["next"]
    assert walked == made


def test_rows_that_arrive_meanwhile_move_no_page(api: Api) -> None:
    made = make(api, 4)
    first = api.get(f"{URL}?limit=2").json()
    make(api, 3)
    assert ids(api, limit=2, cursor=first["next"]) == made[2:]


def test_fifty_is_the_default_limit_and_a_hundred_the_most(api: Api) -> None:
    make(api, 101)
    assert len(ids(api)) == 50
    assert len(ids(api, limit=100)) == 100


def test_the_filters_narrow_the_list(api: Api) -> None:
    make(api, 2)
    wanted = make(api, 1, recipient="ada@example.com", client_reference="order 1/ä", status="SENT")
    assert ids(api, recipient="ada@example.com") == wanted
    assert ids(api, client_reference="order 1/ä") == wanted
    assert ids(api, status="SENT") == wanted
    assert ids(api, status="SENT", recipient="ada@example.com", limit=1) == wanted
    assert ids(api, status="FAILED") == []


def test_created_from_is_inclusive_and_created_to_exclusive(api: Api) -> None:
    start = datetime.now(UTC).replace(microsecond=123456)
    rows = [
        NotificationFactory.create(client=api.client, created_at=start + timedelta(microseconds=n), id=new_id())
        for n in range(3)
    ]
    at = rows[1].created_at
    assert ids(api, created_from=at.isoformat()) == [str(rows[2].pk), str(rows[1].pk)]
    assert ids(api, created_to=at.isoformat()) == [str(rows[0].pk)]
    assert ids(api, created_from=at.isoformat(), created_to=rows[2].created_at.isoformat()) == [str(rows[1].pk)]
    assert api.get(f"{URL}?created_from={at.isoformat()}").status_code == 200  # the plus sign not encoded


@pytest.mark.parametrize(
    "instant", ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"]
)
def test_the_ends_of_time_are_times(api: Api, instant: str) -> None:
    made = make(api, 1)
    ancient = instant < "2000"
    assert ids(api, created_from=instant) == (made if ancient else [])
    assert ids(api, created_to=instant) == ([] if ancient else made)


@pytest.mark.parametrize(
    ("name", "value"),
    [("status", "sent"), ("status", ""), ("recipient", ""), ("client_reference", ""), ("client_reference", "a\0b"),
     ("created_from", "yesterday"), ("created_to", "2030-01-01"), ("created_from", ""), ("limit", "0"), ("limit", "101"),
     ("limit", "-1"), ("limit", "ten"), ("limit", ""), ("limit", "²"), ("limit", "9" * 5000), ("limit", "1.0"),
     ("cursor", ""), ("cursor", "x"), ("cursor", "ä"), ("cursor", "A" * 500), ("page", "2"), ("Limit", "5"), ("offset", "5")],
)  # fmt: skip
def test_an_unknown_parameter_or_a_bad_value_is_400_at_its_name(api: Api, name: str, value: str) -> None:
    response = api.get(f"{URL}?{urlencode({name: value})}")
    assert response.status_code == 400, response.content
    assert pointers(response) == {f"/{name}": "invalid"}


def test_all_bad_parameters_are_said_at_once_and_none_may_be_given_twice(api: Api) -> None:
    response = api.get(f"{URL}?limit=x&status=y&page=1&cursor=z")
    assert set(pointers(response)) == {"/limit", "/status", "/page", "/cursor"}
    assert set(pointers(api.get(f"{URL}?limit=5&limit=6"))) == {"/limit"}
