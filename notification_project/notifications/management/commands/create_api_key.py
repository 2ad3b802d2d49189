from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from notification_project.notifications.authentication import LIVE_KEYS_PER_CLIENT, TooManyKeysError, create_key
from notification_project.notifications.models import ApiClient, ApiKey

NAME_LENGTH = 100


class Command(BaseCommand):
    help = "Makes an API key of a client (the client too where it is new) and prints it, alone, on stdout. It is shown this once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "name", help="the client; again adds a second live key, so that the first one can be retired"
        )
        parser.add_argument(
            "--scopes", default="send,read", help="of send, read, operate, joined by commas (default: %(default)s)"
        )

    def handle(self, *_args: Any, name: str, scopes: str, **_options: Any) -> None:
        chosen = [scope.strip() for scope in scopes.split(",") if scope.strip()]
        unknown = sorted(set(chosen) - set(ApiKey.Scope.values))
        if unknown or not chosen:
            raise CommandError(f"--scopes {scopes!r} is wrong: give one or more of {','.join(ApiKey.Scope.values)}")
        if not 0 < len(name) <= NAME_LENGTH or name.lower().startswith("staff:"):
            raise CommandError(
                f"NAME {name[:NAME_LENGTH]!r} is wrong: give 1 to {NAME_LENGTH} characters that do not begin with staff:"
            )
        with transaction.atomic():
            ApiClient.objects.get_or_create(name=name)
            client = ApiClient.objects.select_for_update().get(name=name)
            try:
                key = create_key(client, chosen)
            except TooManyKeysError as error:
                raise CommandError(
                    f"{name} has {LIVE_KEYS_PER_CLIENT} live keys already: revoke one in the admin first"
                ) from error
        self.stdout.write(key)
