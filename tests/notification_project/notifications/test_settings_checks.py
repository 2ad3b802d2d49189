"""System checks and wiring of the notification service."""

import pytest
from django.conf import settings as django_settings
from django.core.checks import run_checks
from django.core.management import call_command
from django.urls import URLPattern, URLResolver, get_resolver
from pytest_django import Settings

from notification_project.notifications.authentication import BearerAuthentication, HasScope


def test_the_shipped_settings_pass_every_check() -> None:
    assert run_checks() == []


@pytest.mark.parametrize("name", ["RATE_LIMIT_CLIENT", "RATE_LIMIT_RECIPIENT"])
@pytest.mark.parametrize("value", ["", "600", "ten/m", "0/m", "5/0s"])
def test_a_rate_that_is_none_is_refused_by_name_and_value(settings: Settings, name: str, value: str) -> None:
    setattr(settings, name, value)
    (error,) = run_checks()
    assert error.id == "notifications.E001"
    assert error.msg.startswith(f"{name}: {value!r} is no rate: write 0, or")


@pytest.mark.parametrize("value", ["0", "1/s", "600/m", "5/10s", "100000/d"])
def test_a_rate_passes(settings: Settings, value: str) -> None:
    settings.RATE_LIMIT_CLIENT = settings.RATE_LIMIT_RECIPIENT = value
    assert run_checks() == []


@pytest.mark.django_db
def test_the_migrations_are_those_of_the_models() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def api_views(patterns: list[URLPattern | URLResolver]) -> list[type]:
    found: list[type] = []
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            found += api_views(pattern.url_patterns)
        elif cls := getattr(pattern.callback, "cls", None):
            found.append(cls)
    return found


def test_each_route_of_the_api_authenticates_and_asks_for_a_scope() -> None:
    views = [
        view for view in api_views(get_resolver().url_patterns) if view.__module__.startswith("notification_project")
    ]
    assert views
    for view in views:
        assert view.authentication_classes[0] is BearerAuthentication, view  # type: ignore[attr-defined]
        assert view.permission_classes == [HasScope], view  # type: ignore[attr-defined]


def test_the_shared_limits_of_bodies_are_the_contracts() -> None:
    assert django_settings.BODY_LIMIT == 1024**2
    assert django_settings.BODY_LIMITS == {"/api/v1/notifications/batch": 8 * 1024**2}
