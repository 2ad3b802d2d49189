from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.module_loading import import_string

from shared_events.dead_letters.retention import BATCH, prune
from shared_events.runtime.stop import StopSignal


class Command(BaseCommand):
    help = (
        "Deletes what is final, confirmed and older than its retention (*_RETENTION_DAYS), in small batches. "
        "Failures that nobody replayed or dismissed stay. Harmless to repeat and to interrupt; run it from a timer."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--batch", type=int, default=BATCH, help="rows a transaction (default: %(default)s)")
        parser.add_argument("--dry-run", action="store_true", help="only count")

    def handle(self, *_args: Any, batch: int, dry_run: bool, **_options: Any) -> None:
        if batch < 1:
            raise CommandError(f"--batch {batch} is no number of rows: give 1 or more")
        with StopSignal() as stop:
            for rule in import_string(settings.PRUNE_RULES):
                if dry_run:
                    self.stdout.write(f"{rule.name}: {rule.rows().count()} would be deleted")
                    continue
                deleted = 0
                for count in prune(rule, batch=batch):
                    deleted += count
                    if stop.received:
                        break
                self.stdout.write(f"{rule.name}: {deleted} deleted")
                if stop.received:
                    return
