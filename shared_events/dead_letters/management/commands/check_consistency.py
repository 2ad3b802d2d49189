import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils.module_loading import import_string


class Command(BaseCommand):
    help = "Prints the invariants of this service's tables and whether each holds; exit code 1 where one is broken. Reads only."

    def handle(self, *_args: Any, **_options: Any) -> None:
        broken = 0
        for invariant in import_string(settings.INVARIANTS):
            count, samples = invariant.check()
            broken += bool(count)
            verdict = "holds" if not count else f"BROKEN by {count} rows, such as {', '.join(samples)}"
            self.stdout.write(f"{invariant.sentence:<72}  {verdict}")
        if broken:
            self.stderr.write(f"{broken} invariants are broken")
            sys.exit(1)
