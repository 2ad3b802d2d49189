import getpass
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from shared_events.dead_letters.models import DeadLetter
from shared_events.dead_letters.replay import Order, Replayer, Verdict, judge, replay, replayer_from_settings
from shared_events.runtime.stop import StopSignal

BATCH = 500
SLOWEST_PER_SECOND = 0.001

Results = Generator[tuple[DeadLetter, Verdict], None, None]


class Command(BaseCommand):
    help = (
        "Replays dead letters of this service: those that are open when it begins, each once. Name them by --id or --class, or say "
        "--all. --dry-run shows what would happen to each. Harmless to repeat, to interrupt, and while another operator does the same."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        choice = parser.add_argument_group("which").add_mutually_exclusive_group()
        choice.add_argument(
            "--id", action="append", default=[], help="a dead letter, or a notification, by its id; may be given again"
        )
        choice.add_argument(
            "--class", dest="letter_class", default="", help="all open ones of a class, such as recipient or exhausted"
        )
        choice.add_argument("--all", action="store_true", help="all open ones")
        parser.add_argument("--reason", default="", help="why; kept in the audit (required unless --dry-run)")
        parser.add_argument("--operator", default="", help="who; the account that runs this unless given")
        parser.add_argument(
            "--per-second", type=float, default=20.0, help="at most so many a second (default: %(default)s)"
        )
        parser.add_argument("--dry-run", action="store_true", help="change nothing, print what would happen to each")

    def handle(self, *_args: Any, **options: Any) -> None:
        if not SLOWEST_PER_SECOND <= options["per_second"] < float("inf"):
            raise CommandError(f"--per-second {options['per_second']:g} is no number from {SLOWEST_PER_SECOND:g} on")
        reason = options["reason"].strip()
        if not reason and not options["dry_run"]:
            raise CommandError("--reason is missing: say why, for the audit; or look first with --dry-run")
        # Fixed now: a letter that fails again leaves another one behind, which would be met later in the same walk.
        chosen = list(self._choose(options).values_list("pk", flat=True))
        if not chosen:
            self.stdout.write(self._nothing(options["letter_class"]))
            return
        replayer = replayer_from_settings()
        with StopSignal() as stop:
            if options["dry_run"]:
                results = _judged(chosen, replayer)
            else:
                order = Order(options["operator"] or getpass.getuser(), reason)
                results = _replayed(chosen, replayer, order, per_second=options["per_second"], stop=stop)
            with closing(results):
                counts = self._told(results, stop, dry_run=options["dry_run"])
        if left := len(chosen) - counts.total():
            raise CommandError(
                f"stopped by a signal: {left} of {len(chosen)} were not looked at; run it again for them"
            )

    def _told(self, results: Results, stop: StopSignal, *, dry_run: bool) -> Counter[Verdict]:
        counts: Counter[Verdict] = Counter()
        for letter, verdict in results:
            counts[verdict] += 1
            words = verdict.label if dry_run else verdict.outcome
            self.stdout.write(f"{letter.pk}  {letter.letter_class:<14}  {letter.notification_id or '-'!s:<36}  {words}")
            if stop.received:
                break
        self.stdout.write(", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict]))
        return counts

    def _choose(self, options: dict[str, Any]) -> Any:
        open_letters = DeadLetter.objects.open()
        if options["id"]:
            try:
                ids = [UUID(text) for text in options["id"]]
            except ValueError as error:
                raise CommandError(f"--id: {error}; give the id of a dead letter or of a notification") from error
            return open_letters.filter(pk__in=ids) | open_letters.filter(notification_id__in=ids)
        if options["letter_class"]:
            return open_letters.filter(letter_class=options["letter_class"])
        if options["all"]:
            return open_letters
        raise CommandError("nothing is chosen: give --id, --class or --all")

    def _nothing(self, letter_class: str) -> str:
        if not letter_class:
            return "no open dead letters"
        classes = DeadLetter.objects.open().order_by("letter_class").values_list("letter_class", flat=True).distinct()
        return f"no open dead letters of class {letter_class!r}; open ones are of: {', '.join(classes) or 'none'}"


def _batches(ids: list[UUID]) -> Iterator[list[DeadLetter]]:
    for start in range(0, len(ids), BATCH):
        yield list(DeadLetter.objects.filter(pk__in=ids[start : start + BATCH]).order_by("pk"))


def _judged(ids: list[UUID], replayer: Replayer) -> Results:
    for letters in _batches(ids):
        verdicts = judge(letters, replayer)
        yield from ((letter, verdicts[letter.pk]) for letter in letters)


def _replayed(ids: list[UUID], replayer: Replayer, order: Order, *, per_second: float, stop: StopSignal) -> Results:
    for letters in _batches(ids):
        yield from replay(letters, replayer, order, per_second=per_second, sleep=stop.wait)
