from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from notification_project.notifications.restores import ask_again
from shared_events.runtime.process_state import WorkersRunError, refuse_beside_workers


class Command(BaseCommand):
    help = (
        "Run this once after the database was restored from a backup, and before the API or any worker of this service starts. "
        "The e-mail service is asked again after every notification that is open or FAILED; nothing is sent twice by that. "
        "Refuses while workers run; the API is not seen from here and must be stopped. "
        "Interrupted, it is to be run again. docs/operations.md says what comes before and after."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
        try:
            refuse_beside_workers()
        except WorkersRunError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            "the API writes no row of process_state and is not seen from here: it must be stopped until this is done"
        )
        asked = ask_again(after_seconds=settings.RECONCILE_AFTER_SECONDS)
        self.stdout.write(
            f"{asked.seen} notifications seen: {asked.open} open ones are due for reconciling, {asked.failed} failed ones are asked after, "
            f"{asked.due} due events may have been published before and cannot be cancelled"
        )
        self.stdout.write("done: the API and the workers may start")
