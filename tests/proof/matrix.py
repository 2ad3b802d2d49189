"""The guarantee matrix: a row for each fault, and what each row must say."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple
from uuid import UUID

from tests.proof.faults import Fault
from tests.proof.load import REFUSED, Load
from tests.proof.stage import Stage

STATUSES = ("PENDING", "SENT", "FAILED", "UNCERTAIN")


class Outcome(NamedTuple):
    """A notification's row when all is over."""

    status: str
    announced: int
    recipient: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What came of the notifications that were accepted while a fault happened.

    lost: accepted and without a row, or SENT without a mail, or FAILED though nobody refused it. extra_copies: mails beyond the first
    of each. announced: the sum of `possible_duplicates`. left_open: neither final nor held for an operator when all was over.
    seconds: from the fault's end until nothing was left to do.
    """

    fault: str
    accepted: int
    sent: int
    failed: int
    lost: int
    extra_copies: int
    announced: int
    uncertain: int
    left_open: int
    seconds: float
    broken: tuple[str, ...] = ()

    def with_broken(self, more: Sequence[str]) -> "Row":
        return replace(self, broken=(*self.broken, *more))

    @property
    def holds(self) -> bool:
        return not self.broken


COLUMNS = [field.name for field in fields(Row) if field.name != "broken"]


def row_of(
    fault: Fault, stage: Stage, load: Load, *, before: Mapping[str, int], seconds: float, dead_letters: int
) -> Row:
    """Looks at the rows and the mails of a load that is over; `before` are the mails that had come until it began, `dead_letters` those
    that came meanwhile.
    """
    statement = "SELECT id, status, possible_duplicates, recipient FROM notifications WHERE client_reference = %s"
    found = {
        str(UUID(str(key))): Outcome(str(status), int(copies), str(recipient))
        for key, status, copies, recipient in stage.platform.sql("notification", statement, [load.reference])
    }
    mails = stage.mails()
    accepted = set(load.accepted)
    by_status = {status: {key for key, row in found.items() if row.status == status} for status in STATUSES}
    pending, sent, failed, uncertain = (by_status[status] for status in STATUSES)
    refused_for_good = {key for key in failed if fault.mix.refused and found[key].recipient.startswith(REFUSED)}
    missing = accepted - found.keys()
    unsent = {key for key in sent if not mails[key]}
    extra = {key: mails[key] - 1 for key in found if mails[key] > 1}
    checks: list[tuple[str, Iterable[object]]] = [
        ("accepted and not stored", missing),
        ("stored and never accepted", found.keys() - accepted),
        ("in none of the states", found.keys() - pending - sent - failed - uncertain),
        ("SENT and no mail", unsent),
        ("FAILED and nobody refused it", failed - refused_for_good),
        ("FAILED and it arrived", {key for key in failed if mails[key]}),
        ("UNCERTAIN though it was to be sent again", uncertain - load.held),
        ("copies that are not announced", {key for key, copies in extra.items() if copies > found[key].announced}),
        ("held mails that were sent again", {key for key in load.held if mails[key] > 1}),
        ("mails of none of these", {key for key in mails.keys() - found.keys() if mails[key] > before.get(key, 0)}),
        ("left open", pending),
        ("requests that were never accepted", load.unanswered),
        ("rows left to do", [f"{name}: {n}" for name, n in stage.open_by_table().items()]),
    ]
    broken = [f"{words}: {', '.join(map(str, list(items)[:5]))}" for words, items in checks if items]
    row = Row(
        fault=fault.name,
        accepted=len(accepted),
        sent=len(sent),
        failed=len(failed),
        lost=len(missing | unsent | (failed - refused_for_good)),
        extra_copies=sum(extra.values()),
        announced=sum(row.announced for row in found.values()),
        uncertain=len(uncertain),
        left_open=len(pending),
        seconds=round(seconds, 1),
    )
    return row.with_broken([*broken, *wrong_counts(fault, row, dead_letters)])


def nothing_known(fault: Fault) -> Row:
    """The row of a fault whose end was not seen."""
    return replace(total([]), fault=fault.name)


def wrong_counts(fault: Fault, row: Row, dead_letters: int) -> Iterator[str]:
    """What a row says that its fault cannot have made."""
    if not row.accepted:
        yield "nothing was accepted"
    if fault.dead_letters == "replayed":
        if dead_letters < 1 or row.failed:
            yield f"{row.failed} FAILED after all of {dead_letters} dead letters were replayed"
    else:
        expected = row.failed if fault.dead_letters == "failed" else fault.dead_letters
        if dead_letters != expected:
            yield f"{dead_letters} dead letters where {expected} are right"
    if fault.is_none and (row.announced or row.uncertain):
        yield "something is uncertain though nothing happened"


def total(rows: Sequence[Row]) -> Row:
    """The sums of all rows; the seconds are those of the slowest."""

    def sum_of(name: str) -> int:
        return sum(getattr(row, name) for row in rows)

    return Row(
        fault=f"all {len(rows)} rows",
        accepted=sum_of("accepted"),
        sent=sum_of("sent"),
        failed=sum_of("failed"),
        lost=sum_of("lost"),
        extra_copies=sum_of("extra_copies"),
        announced=sum_of("announced"),
        uncertain=sum_of("uncertain"),
        left_open=sum_of("left_open"),
        seconds=max((row.seconds for row in rows), default=0.0),
    )


def text_header(width: int) -> str:
    return f"{'fault':<{width}}  " + "  ".join(name.replace("_", " ") for name in COLUMNS[1:])


def text_line(row: Row, width: int) -> str:
    cells = [f"{getattr(row, name)!s:>{len(name)}}" for name in COLUMNS[1:]]
    verdict = "" if row.holds else "  BROKEN: " + "; ".join(row.broken)
    return f"{row.fault:<{width}}  " + "  ".join(cells) + verdict


def as_markdown(rows: Sequence[Row]) -> str:
    names = [name.replace("_", " ") for name in COLUMNS]
    lines = ["| " + " | ".join(names) + " |", "|" + "|".join(["---", *["--:"] * (len(names) - 1)]) + "|"]
    lines += ["| " + " | ".join(str(getattr(row, name)) for name in COLUMNS) + " |" for row in rows]
    if len(rows) > 1:
        summary = total(rows)
        lines.append("| **" + "** | **".join(str(getattr(summary, name)) for name in COLUMNS) + "** |")
    return "\n".join(lines)
