"""An hour of mixed load with faults drawn by chance: what came of it all, and whether the processes' memory stays flat."""

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.proof.faults import FAULTS, Fault
from tests.proof.injections import Scene
from tests.proof.load import Load, Mix
from tests.proof.matrix import Row, row_of, text_header, text_line
from tests.proof.run import happen
from tests.proof.stage import PROCESSES, Stage

CONVERGE_SECONDS = 300.0
SETTLED_AFTER_SECONDS = 240.0
"""Memory is compared from then on: until then a process loads its modules and fills its pools."""
CALM_SECONDS = (3.0, 10.0)
API_FAULTS_FOR = 0.15
"""The share of the time in which also the API is ended: later its memory is watched."""
GROWTH_ALLOWED = 0.15
SAMPLE_SECONDS = 5.0


@dataclass(slots=True)
class Memory:
    """Resident memory of one process, in MiB: where it had settled, and at its end."""

    name: str
    born: float
    settled: float = 0.0
    last: float = 0.0
    most: float = 0.0
    seconds: float = 0.0

    @property
    def growth(self) -> float:
        return self.last / self.settled - 1 if self.settled else 0.0


@dataclass(slots=True)
class SoakReport:
    row: Row
    minutes: float
    drawn: Counter[str]
    wrong: list[str]
    memory: list[Memory] = field(default_factory=list)

    @property
    def grown(self) -> list[Memory]:
        return [memory for memory in self.memory if memory.growth > GROWTH_ALLOWED]

    @property
    def holds(self) -> bool:
        return self.row.holds and not self.wrong and not self.grown

    def as_text(self) -> str:
        width = len(self.row.fault)
        lines = [text_header(width), text_line(self.row, width), "", "faults drawn:"]
        lines += [f"  {count:>3}  {name}" for name, count in self.drawn.most_common()]
        lines += ["", "memory of the processes that lived longest, MiB:", *self.memory_lines()]
        lines += [f"BROKEN: {words}" for words in self.wrong]
        lines += [f"BROKEN: {memory.name} grew by {memory.growth:.0%}" for memory in self.grown]
        return "\n".join(lines)

    def memory_lines(self) -> list[str]:
        lines = [f"  {'process':<28} {'minutes':>7} {'after 4':>8} {'at end':>7} {'most':>7} {'growth':>7}"]
        lines += [
            f"  {memory.name:<28} {memory.seconds / 60:>7.1f} {memory.settled:>8.1f} {memory.last:>7.1f}"
            f" {memory.most:>7.1f} {memory.growth:>7.1%}"
            for memory in self.memory
        ]
        return lines


class MemoryWatch:
    """Samples every process of the stage, children included."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._found: dict[int, Memory] = {}
        self._sampled_at = 0.0

    def sample(self) -> None:
        now = time.monotonic()
        if now - self._sampled_at < SAMPLE_SECONDS:
            return
        self._sampled_at = now
        for process in self._stage.platform.processes:
            if process.popen.poll() is not None:
                continue
            memory = self._found.setdefault(process.popen.pid, Memory(process.name, now))
            memory.last = resident_mebibytes(process.popen.pid)
            memory.most = max(memory.most, memory.last)
            memory.seconds = now - memory.born
            if memory.seconds >= SETTLED_AFTER_SECONDS and not memory.settled:
                memory.settled = memory.last

    def longest(self) -> list[Memory]:
        """The one of each name that lived longest, where it lived long enough to be judged."""
        best: dict[str, Memory] = {}
        for memory in self._found.values():
            if memory.settled and memory.seconds > best.get(memory.name, memory).seconds - 1:
                best[memory.name] = memory
        return [best[name] for name in sorted(best)]


def resident_mebibytes(pid: int) -> float:
    """Of a process and its descendants, from /proc."""
    total = 0.0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * 4096 / 2**20
            waiting += [int(child) for child in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def soak(stage: Stage, *, minutes: float, seed: int) -> SoakReport:
    """Draws a fault, makes it happen, mends it, waits a little, and so on; all under one load."""
    chance = random.Random(seed)
    watch = MemoryWatch(stage)
    letters, mails = stage.dead_letters(), stage.mails()
    began = time.monotonic()
    drawn: Counter[str] = Counter()
    wrong: list[str] = []
    with Load(stage.platform, f"soak-{seed}", Mix(), seed) as load:
        load.wait_for_more()
        while (passed := time.monotonic() - began) < minutes * 60:
            fault = draw(chance, passed / (minutes * 60))
            drawn[fault.name] += 1
            print(f"{passed / 60:6.1f} min  {len(load.accepted):>6} accepted  {fault.name}", flush=True)
            scene = Scene(stage=stage, load=load, chance=random.Random(f"{seed}-{drawn.total()}"))
            wrong += [f"{passed / 60:.1f} min, {fault.name}: {words}" for words in happen(fault, scene)]
            load.wait_for_more(timeout_seconds=CONVERGE_SECONDS)  # so that the next fault meets a load that flows
            calm_until = time.monotonic() + chance.uniform(*CALM_SECONDS)
            while time.monotonic() < calm_until:
                watch.sample()
                time.sleep(0.5)
    healed = time.monotonic()
    if not stage.converge(CONVERGE_SECONDS):
        wrong.append(f"not all was done {CONVERGE_SECONDS:g} s later, with {stage.platform.lag()} records unread")
    watch.sample()
    judged = watch.longest()
    if minutes * 60 * (1 - API_FAULTS_FOR) > 2 * SETTLED_AFTER_SECONDS:
        unjudged = set(PROCESSES) - {memory.name for memory in judged}
        wrong += [f"no {name} lived long enough to judge its memory" for name in sorted(unjudged)]
    row = row_of(
        Fault(name=f"{minutes:g} minutes, {drawn.total()} faults", inject=lambda _scene: None),
        stage,
        load,
        before=mails,
        seconds=time.monotonic() - healed,
        dead_letters=stage.dead_letters() - letters,
    )
    return SoakReport(row, minutes, drawn, wrong, judged)


def draw(chance: random.Random, share: float) -> Fault:
    """A fault by chance; after the first `share` none that ends the API. What is drawn does not depend on when, but for those."""
    lasting = [fault for fault in FAULTS if fault.lasting]
    while True:
        fault = chance.choice(lasting)
        if share < API_FAULTS_FOR or not ends_the_api(fault):
            return fault


def ends_the_api(fault: Fault) -> bool:
    return "notification_api" in fault.name or "every process" in fault.name
