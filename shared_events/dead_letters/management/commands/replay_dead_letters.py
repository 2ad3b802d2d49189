import getpass
from argparse import ArgumentParser
from collections import Counter
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from shared_events.dead_letters.models import DeadLetter
from shared_events.dead_letters.replay import Order, Verdict, judge, replay, replayer_from_settings

BATCH = 500


class Command(BaseCommand):
    help = (
        "Replays dead letters of this service. Name them by --id or --class, or say --all. --dry-run shows what would happen to each. "
        "Harmless to repeat, and while another operator does the same."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--id", action="append", default=[], help="a dead letter, or a notification, by its id; may be given again"
        )
        parser.add_argument(
            "--class", dest="letter_class", default="", help="all open ones of a class, such as recipient or exhausted"
        )
        parser.add_argument("--all", action="store_true", help="all open ones")
        parser.add_argument("--reason", default="", help="why; kept in the audit (required unless --dry-run)")
        parser.add_argument("--operator", default="", help="who; the account that runs this unless given")
        parser.add_argument(
            "--per-second", type=float, default=20.0, help="at most so many a second (default: %(default)s)"
        )
        parser.add_argument("--dry-run", action="store_true", help="change nothing, print what would happen to each")

    def handle(self, *_args: Any, **options: Any) -> None:
        if options["per_second"] <= 0:
            raise CommandError(f"--per-second {options['per_second']:g} is not above 0")
        if not options["reason"] and not options["dry_run"]:
            raise CommandError("--reason is missing: say why, for the audit; or look first with --dry-run")
        chosen = self._choose(options)
        replayer = replayer_from_settings()
        order = Order(options["operator"] or getpass.getuser(), options["reason"])
        counts: Counter[Verdict] = Counter()
        while letters := list(chosen[:BATCH]):
            if options["dry_run"]:
                verdicts = judge(letters, replayer)
                results = [(letter, verdicts[letter.pk]) for letter in letters]
            else:
                results = list(replay(letters, replayer, order, per_second=options["per_second"]))
            for letter, verdict in results:
                counts[verdict] += 1
                self.stdout.write(
                    f"{letter.pk}  {letter.letter_class:<14}  {letter.notification_id or '-'!s:<36}  {verdict.label}"
                )
            chosen = chosen.filter(pk__gt=letters[-1].pk)
        self.stdout.write(
            ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict])
            or "no open dead letters"
        )

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
