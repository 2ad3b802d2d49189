"""The guarantee matrix: a row for each fault, and what each row must say."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from uuid import UUID

from tests.proof.faults import Fault
from tests.proof.load import Load
from tests.proof.stage import Stage


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


def row_of(fault: Fault, stage: Stage, load: Load, *, seconds: float, dead_letters: int) -> Row:
    """Looks at the rows and the mails of a load that is over; `dead_letters` came meanwhile."""
    platform = stage.platform
    statement = "SELECT id, status, possible_duplicates, recipient FROM notifications WHERE client_reference = %s"
    found = {
        str(UUID(str(key))): (str(status), int(copies), str(recipient))
        for key, status, copies, recipient in platform.sql("notification", statement, [load.reference])
    }
    mails = stage.mails()
    accepted = set(load.accepted)
    missing = accepted - found.keys()
    unknown = found.keys() - accepted
    refused_for_good = {key for key, row in found.items() if row[0] == "FAILED" and row[2].startswith("refused-")}
    failed = {key for key, row in found.items() if row[0] == "FAILED"}
    unsent = {key for key, row in found.items() if row[0] == "SENT" and not mails[key]}
    extra = {key: mails[key] - 1 for key in accepted if mails[key] > 1}
    unannounced = {key for key, copies in extra.items() if copies > found.get(key, ("", 0, ""))[1]}
    resent = {key for key in load.held if mails[key] > 1}
    pending = {key for key, row in found.items() if row[0] == "PENDING"}
    lost = missing | unsent | (failed - refused_for_good)
    checks: list[tuple[str, Iterable[object]]] = [
        ("accepted and not stored", missing),
        ("stored and never accepted", unknown),
        ("SENT and no mail", unsent),
        ("FAILED and nobody refused it", failed - refused_for_good),
        ("copies that are not announced", unannounced),
        ("held mails that were sent again", resent),
        ("left open", pending),
        ("requests that were never accepted", load.unanswered),
        ("rows left to do", [f"{name}: {n}" for name, n in stage.open_by_table().items()]),
    ]
    broken = [f"{words}: {', '.join(map(str, list(items)[:5]))}" for words, items in checks if items]
    if dead_letters and not fault.dead_letters:
        broken.append(f"{dead_letters} dead letters of an outage")
    if not accepted:
        broken.append("nothing was accepted")
    return Row(
        fault=fault.name,
        accepted=len(accepted),
        sent=sum(row[0] == "SENT" for row in found.values()),
        failed=len(failed),
        lost=len(lost),
        extra_copies=sum(extra.values()),
        announced=sum(row[1] for row in found.values()),
        uncertain=sum(row[0] == "UNCERTAIN" for row in found.values()),
        left_open=len(pending),
        seconds=round(seconds, 1),
        broken=tuple(broken),
    )


def total(rows: Sequence[Row]) -> Row:
    """The sums of all rows; the seconds are those of the slowest."""

    def sum_of(name: str) -> int:
        return sum(getattr(row, name) for row in rows)

    return Row(
        fault=f"{len(rows)} faults",
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
    summary = total(rows)
    lines.append("| **" + "** | **".join(str(getattr(summary, name)) for name in COLUMNS) + "** |")
    return "\n".join(lines)
