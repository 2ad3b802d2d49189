import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils.module_loading import import_string

from shared_events.dead_letters.invariants import count_by_step


class Command(BaseCommand):
    help = (
        "Prints how many notifications are in which step, and the invariants of this service's tables and whether each holds; "
        "exit code 1 where one is in no step or an invariant is broken. Reads only."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
        broken = self._print_steps()
        for invariant in import_string(settings.INVARIANTS):
            count, samples = invariant.check()
            broken += bool(count)
            verdict = "holds" if not count else f"BROKEN by {count} rows, such as {', '.join(samples)}"
            self.stdout.write(f"{invariant.sentence:<72}  {verdict}")
        if broken:
            self.stderr.write(f"{broken} invariants are broken")
            sys.exit(1)

    def _print_steps(self) -> int:
        rows, steps = import_string(settings.STEPS)
        counts, lost = count_by_step(rows, steps)
        for words, count in [*counts, ("all", sum(count for _, count in counts) + lost)]:
            self.stdout.write(f"{words:<72}  {count:>9}")
        verdict = "holds" if not lost else f"BROKEN by {lost} rows"
        self.stdout.write(f"{'every accepted one is final or owned by a live step':<72}  {verdict}")
        return int(lost > 0)
