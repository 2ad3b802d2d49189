"""What the demo prints: steps, the samples' table (live on a terminal, else a line a change), the addresses."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from manage_scripts.demo_parts.samples import Followed

COLOURS = {"SENT": "green", "FAILED": "red", "UNCERTAIN": "magenta", "CANCELLED": "dim", "PENDING": "yellow"}


class Display:
    """Prints to standard output; live only where that is a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._started_at = time.monotonic()

    @contextmanager
    def step(self, doing: str) -> Iterator[Callable[[str], None]]:
        """Show that something is being done, then what came of it: what the yielded function was told, or `doing`."""
        said = [doing]
        if self.console.is_terminal:
            with self.console.status(doing):
                yield lambda text: said.__setitem__(0, text)
        else:
            yield lambda text: said.__setitem__(0, text)
        elapsed = time.monotonic() - self._started_at
        self.console.print(Text.assemble(("✓ ", "green"), said[0], (f"  {elapsed:.1f} s", "dim")), soft_wrap=True)

    @contextmanager
    def samples(self, followed: list[Followed]) -> Iterator[Callable[[], None]]:
        """Yields what is to be called after each look at the samples."""
        if self.console.is_terminal:
            with Live(table(followed), console=self.console, auto_refresh=False) as live:
                yield lambda: live.update(table(followed), refresh=True)
        else:
            seen: dict[str, tuple[str, ...]] = {}
            yield lambda: self._changed(followed, seen)

    def _changed(self, followed: list[Followed], seen: dict[str, tuple[str, ...]]) -> None:
        for one in followed:
            state = (str(one.view["status"]), attempts(one), next_attempt(one))
            if seen.get(one.id) != state:
                seen[one.id] = state
                status, tried, following = state
                details = f"attempts {tried}" + (f", next {following}" if following else "")
                self.line(
                    f"{one.seconds:6.2f} s  {one.sample.recipient:<24} {status:<9} {details}  ({one.sample.shows})"
                )

    def line(self, text: str = "", style: str = "") -> None:
        self.console.print(Text(text, style=style), soft_wrap=True)

    def addresses(self, named: dict[str, str]) -> None:
        width = max(len(name) for name in named)
        for name, value in named.items():
            self.console.print(Text.assemble((f"  {name:<{width}}  ", "dim"), (value, "bold")), soft_wrap=True)


def table(followed: list[Followed]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, collapse_padding=True)
    for heading in ("Recipient", "Shows", "Status"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("Attempts", "Next", "To final"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for one in followed:
        status = str(one.view["status"])
        final = one.finished_at is not None
        shown.add_row(
            one.sample.recipient,
            one.sample.shows,
            Text(status, style=COLOURS.get(status, "")),
            attempts(one),
            next_attempt(one),
            Text(f"{one.seconds:.2f} s", style="" if final else "dim"),
        )
    return shown


def attempts(one: Followed) -> str:
    return str(one.view.get("attempts") or 0)


def next_attempt(one: Followed) -> str:
    moment = one.view.get("next_attempt_at")
    return f"{datetime.fromisoformat(moment).astimezone():%H:%M:%S}" if moment else ""
