"""API keys: hashed, scoped, rotated two at a time; and what staff may do without one."""

import hashlib
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.http import HttpRequest
from django.test import Client
from pytest_django import Settings

from notification_project.notifications.authentication import TooManyKeysError, create_key, digest_of, needed_scope
from notification_project.notifications.models import ApiClient, ApiKey, Notification
from tests.notification_project.conftest import URL, Api
from tests.notification_project.factories import ApiClientFactory, BodyFactory, NotificationFactory, ago, ahead

pytestmark = pytest.mark.django_db


def key_for(*scopes: str) -> tuple[str, ApiKey]:
    key = create_key(ApiClientFactory.create(), list(scopes))
    return key, ApiKey.objects.latest("pk")


def answer(key: str) -> int:
    status: int = Api(ApiClient(), key).get().status_code
    return status


def test_a_key_is_stored_hashed_and_cannot_be_read_back() -> None:
    key, row = key_for("read")
    assert key.startswith(f"nx_{row.prefix}_")
    assert len(key) > 43
    assert bytes(row.digest) == digest_of(key) != hashlib.sha256(key.encode()).digest()
    stored = repr([*ApiKey.objects.values_list()])
    assert key not in stored
    assert key.rpartition("_")[2] not in stored


def test_the_digest_depends_on_the_secret_key(settings: Settings) -> None:
    key, _ = key_for("read")
    assert answer(key) == 200
    settings.SECRET_KEY = "another key"
    assert answer(key) == 401


@pytest.mark.parametrize("change", ["x", " x", "_x"])
def test_nothing_but_the_whole_key_is_accepted(change: str) -> None:
    key, row = key_for("read")
    for wrong in (key + change, key[:-1], key.swapcase(), f"nx_{row.prefix}_", f"nx_{row.prefix}", row.prefix):
        assert answer(wrong) == 401, wrong


def test_the_secret_of_one_key_does_not_open_another() -> None:
    (key, _), (_, other) = key_for("read"), key_for("read")
    assert answer(f"nx_{other.prefix}_{key.split('_', 2)[2]}") == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_read_in_any_case(scheme: str) -> None:
    key, _ = key_for("read")
    assert Client().get(URL, headers={"Authorization": f"{scheme} {key}"}).status_code == 200


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"expires_at": ago(seconds=5)}, 401), ({"expires_at": ahead(minutes=5)}, 200), ({"revoked_at": ago(seconds=5)}, 401),
     ({"expires_at": ahead(minutes=5), "revoked_at": ago(days=1)}, 401)],
)  # fmt: skip
def test_expired_and_revoked_keys_are_refused(fields: dict[str, Any], status: int) -> None:
    key, _ = key_for("read")
    ApiKey.objects.update(**fields)
    assert answer(key) == status


def test_what_is_wrong_with_a_key_is_not_said() -> None:
    key, _ = key_for("read")
    unknown = Client().get(URL, headers={"Authorization": "Bearer nx_0000000000_x"}).json()["detail"]
    ApiKey.objects.update(revoked_at=ago(seconds=5))
    assert Client().get(URL, headers={"Authorization": f"Bearer {key}"}).json()["detail"] == unknown


def test_two_keys_of_a_client_live_at_a_time_and_a_third_is_refused() -> None:
    client = ApiClientFactory.create()
    keys = [create_key(client, ["read"]) for _ in range(2)]
    assert [answer(key) for key in keys] == [200, 200]
    with pytest.raises(TooManyKeysError):
        create_key(client, ["read"])
    ApiKey.objects.filter(prefix=keys[0].split("_")[1]).update(revoked_at=ago(seconds=1))
    assert answer(create_key(client, ["read"])) == 200
    assert answer(keys[0]) == 401


def test_an_expired_key_leaves_room_for_a_new_one() -> None:
    client = ApiClientFactory.create()
    for _ in range(2):
        create_key(client, ["read"])
    ApiKey.objects.filter(client=client).update(expires_at=ago(seconds=1))
    create_key(client, ["read"])
    assert ApiKey.live().filter(client=client).count() == 1


@pytest.mark.parametrize(
    ("scopes", "read", "send"),
    [(["read"], 200, 403), (["send"], 403, 202), (["operate"], 403, 403), (["send", "read"], 200, 202)],
)
def test_a_scope_opens_what_it_names_and_nothing_more(scopes: list[str], read: int, send: int) -> None:
    api = Api(ApiClient(), key_for(*scopes)[0])
    assert api.get().status_code == read
    assert api.post(BodyFactory.build()).status_code == send
    assert api.batch(BodyFactory.build()).status_code == send


def test_a_scope_is_compared_whole() -> None:
    key, _ = key_for("read")
    ApiKey.objects.update(scopes="reader,presend")
    assert answer(key) == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_an_action_that_names_no_scope_needs_send(method: str) -> None:
    request: Any = HttpRequest()
    request.method = method
    assert needed_scope(request, object()) == "send"


def staff_client(*permissions: str, **fields: Any) -> Client:
    user = User.objects.create_user("ada", password="x", **{"is_staff": True, **fields})
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def test_staff_read_every_clients_notifications() -> None:
    rows = NotificationFactory.create_batch(2)
    client = staff_client()
    listed = client.get(URL, headers={"Accept": "application/json"}).json()["results"]
    assert [row["id"] for row in listed] == [str(row.pk) for row in rows[::-1]]
    assert client.get(f"{URL}/{rows[0].pk}", headers={"Accept": "application/json"}).status_code == 200


@pytest.mark.parametrize(("permissions", "status"), [([], 403), (["add_notification"], 202)])
def test_staff_send_only_with_the_models_permission(permissions: list[str], status: int) -> None:
    response = staff_client(*permissions).post(URL, BodyFactory.build(), content_type="application/json")
    assert response.status_code == status
    assert Notification.objects.count() == int(status == 202)


def test_staff_act_for_a_client_of_their_own_name() -> None:
    client = staff_client("add_notification")
    for _ in range(2):
        client.post(URL, BodyFactory.build(), content_type="application/json")
    assert {row.client.name for row in Notification.objects.select_related("client")} == {"staff:ada"}


def test_users_who_are_no_staff_or_not_active_may_nothing() -> None:
    assert staff_client(is_staff=False).get(URL).status_code == 403
    User.objects.all().delete()
    assert staff_client(is_active=False).get(URL).status_code == 401
