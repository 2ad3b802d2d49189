"""The command create_api_key: the key, alone, on stdout."""

import io
import re

import pytest
from django.core.management import CommandError, call_command

from notification_project.notifications.models import ApiClient, ApiKey
from tests.notification_project.conftest import Api
from tests.notification_project.factories import BodyFactory

pytestmark = pytest.mark.django_db


def create(name: str = "shop", *options: str) -> str:
    out, err = io.StringIO(), io.StringIO()
    call_command("create_api_key", name, *options, stdout=out, stderr=err)
    assert err.getvalue() == ""
    return out.getvalue()


def test_stdout_is_the_key_alone_and_it_works_at_once() -> None:
    printed = create()
    assert re.fullmatch(r"nx_[0-9a-f]{10}_[\w-]{43}\n", printed)
    api = Api(ApiClient.objects.get(name="shop"), printed.strip())
    assert api.post(BodyFactory.build()).status_code == 202
    assert api.get().status_code == 200


def test_the_scopes_are_those_that_were_asked_for() -> None:
    create("shop", "--scopes", "read, operate")
    assert ApiKey.objects.get().scopes == "read,operate"
    create("bureau")
    assert ApiKey.objects.get(client__name="bureau").scopes == "send,read"


def test_again_adds_a_second_key_of_the_same_client_and_a_third_is_refused() -> None:
    first, second = create(), create()
    assert first != second
    with pytest.raises(CommandError, match="shop has 2 live keys already: revoke one in the admin first"):
        create()
    assert ApiClient.objects.count() == 1
    assert ApiKey.objects.count() == 2


@pytest.mark.parametrize("scopes", ["", ",", "sned", "send,admin", "SEND", "send read"])
def test_wrong_scopes_are_named_with_those_there_are(scopes: str) -> None:
    with pytest.raises(
        CommandError, match=re.escape(f"--scopes {scopes!r} is wrong: give one or more of send,read,operate")
    ):
        create("shop", "--scopes", scopes)
    assert not ApiClient.objects.exists()


@pytest.mark.parametrize("name", ["", "x" * 101, "staff:ada"])
def test_a_wrong_name_is_said(name: str) -> None:
    with pytest.raises(CommandError, match=r"NAME .* is wrong: give 1 to 100 characters"):
        create(name)
    assert not ApiClient.objects.exists()
