"""The fuse: a version of the code that fails on all records turns none of them into dead letters, however often it is restarted."""

import pytest

from .handlers import AWAY, TOPIC, Arrived, Handler, Looping, ScriptedConsumer

LIMIT = 4


def arrivals(count: int, *, first: int = 0) -> list[Arrived | int | None]:
    return [Arrived(0, offset) for offset in range(first, first + count)]


def values(count: int, *, first: int = 0) -> list[bytes]:
    return [b"0/%d" % offset for offset in range(first, first + count)]


class Fused(Looping):
    """A loop on scripted arrivals with a small fuse, run for rounds of ten seconds."""

    def __init__(self, handler: Handler, arrived: list[Arrived | int | None], *, limit: int = LIMIT) -> None:
        self.consumer = ScriptedConsumer(arrived)
        super().__init__(self.consumer, TOPIC, handler, fuse_records=limit)  # type: ignore[arg-type]

    def run(self, rounds: int = 5) -> None:
        for _ in range(rounds):
            self.loop.run_once(0)
            self.clock.advance(10)

    @property
    def letters(self) -> list[bytes | None]:
        return [value for value, _, _ in self.handler.letters]

    def is_whole(self) -> bool:
        return self.loop._fuse.is_closed

    @property
    def reason(self) -> str:
        return self.loop._fuse.reason


def test_a_run_beyond_the_limit_writes_none_of_them_and_commits_none() -> None:
    fused = Fused(Handler(bad=values(10, first=1)), arrivals(11))
    fused.run()
    assert (fused.letters, fused.consumer.committed) == ([], [(0, 1)])
    assert not fused.is_whole()


def test_restarts_of_a_bad_version_write_nothing() -> None:
    for _ in range(20):
        for count in (1, LIMIT, LIMIT + 1, 30):
            fused = Fused(Handler(bad=values(30)), arrivals(count))
            fused.run(3)
            assert (fused.letters, fused.consumer.committed) == ([], []), count


def test_a_good_version_goes_on_where_the_bad_one_held() -> None:
    handler = Handler(bad=values(30))
    fused = Fused(handler, arrivals(30))
    fused.run()
    handler.bad = set()
    fused.run()
    assert handler.handled == values(30)
    assert (fused.letters, fused.consumer.committed) == ([], [(0, 30)])
    assert fused.is_whole()
    assert fused.consumer.calls == ["pause", "pause", "pause", "pause", "pause", "resume"]


def test_a_bad_record_after_a_good_one_is_a_dead_letter_at_once() -> None:
    fused = Fused(Handler(bad=values(1, first=1)), [*arrivals(1), None, *arrivals(1, first=1)])
    fused.run(2)
    assert (fused.letters, fused.consumer.committed) == (values(1, first=1), [(0, 1), (0, 2)])


def test_the_first_record_after_a_start_is_held_until_another_can_be_handled() -> None:
    fused = Fused(Handler(bad=values(1)), [*arrivals(1), None, None, *arrivals(1, first=1)])
    fused.run(2)
    assert (fused.letters, fused.consumer.committed, fused.consumer.calls) == ([], [], [])
    fused.run()
    assert (fused.letters, fused.handler.handled) == (values(1), values(1, first=1))
    assert (fused.consumer.committed, fused.is_whole()) == ([(0, 2)], True)


def test_a_version_that_breaks_on_the_way_gives_up_no_more_than_the_limit() -> None:
    trickle: list[Arrived | int | None] = []
    for offset in range(30):
        trickle += [Arrived(0, offset), None]
    fused = Fused(Handler(bad=values(29, first=1)), trickle)
    fused.run(40)
    assert fused.letters == values(LIMIT, first=1)
    assert fused.consumer.committed[-1] == (0, LIMIT + 1)


def test_what_an_outage_hands_over_again_is_counted_once() -> None:
    handler = Handler(bad=values(3, first=1))
    fused = Fused(handler, [*arrivals(1), None, *arrivals(3, first=1)])
    fused.run(1)
    write, away = handler.write_dead_letter, [AWAY] * 3

    def write_or_fail(*arguments: object, **named: object) -> None:
        if away:
            raise away.pop()
        write(*arguments, **named)  # type: ignore[arg-type]

    fused.loop._write_dead_letter = write_or_fail
    fused.run(10)
    assert fused.letters == values(3, first=1)
    assert fused.is_whole()


def test_without_a_limit_every_record_that_cannot_be_handled_becomes_a_dead_letter() -> None:
    fused = Fused(Handler(bad=values(30)), arrivals(30), limit=0)
    fused.run(1)
    assert (fused.letters, fused.consumer.committed) == (values(30), [(0, 30)])


def test_the_reason_names_the_first_record_and_what_mends_it() -> None:
    fused = Fused(Handler(bad=values(30)), arrivals(30))
    fused.run(1)
    assert (
        "records of events cannot be handled and are held, 5 so far, the first at partition 0 offset 0" in fused.reason
    )
    assert "(ZeroDivisionError): deploy a version that can" in fused.reason
    assert "set CONSUMER_FUSE_RECORDS=0" in fused.reason


def test_it_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    fused = Fused(Handler(bad=values(30)), arrivals(30))
    fused.run(12)  # two minutes
    said = [line for line in caplog.messages if "circuit open" in line]
    assert len(said) == 2
    assert len([line for line in caplog.messages if "one by one" in line]) == 1


def test_a_partition_that_goes_takes_its_held_records_and_the_warning_along() -> None:
    fused = Fused(Handler(bad=values(1)), [*arrivals(1), None, 0])
    fused.run(1)
    assert not fused.is_whole()
    fused.run(2)
    assert fused.is_whole()
    assert not fused.letters


def test_while_it_is_blown_memory_does_not_grow_with_the_topic() -> None:
    fused = Fused(Handler(bad=values(3000)), arrivals(3000))
    fused.run(100)
    assert len(fused.loop._pending) <= 600


def test_one_that_can_be_handled_frees_what_an_earlier_run_had_paused() -> None:
    trickle: list[Arrived | int | None] = []
    for offset in range(26):
        trickle += [Arrived(0, offset), None]
    fused = Fused(Handler(bad=values(LIMIT + 1, first=1)), trickle)
    fused.run(80)
    assert fused.letters == values(LIMIT + 1, first=1)
    assert len(fused.handler.handled) == 26 - (LIMIT + 1)
    assert (fused.consumer.committed[-1], fused.is_whole()) == ((0, 26), True)


def test_a_record_that_is_held_after_an_outage_at_the_start_is_freed_by_the_next() -> None:
    handler = Handler(bad=values(1))
    handler.is_away = True
    fused = Fused(handler, [*arrivals(1), None, None, None, None, *arrivals(19, first=1)])
    fused.run(3)
    handler.is_away = False
    fused.run(20)
    assert (fused.letters, handler.handled) == (values(1), values(19, first=1))
    assert fused.consumer.committed[-1] == (0, 20)


def test_what_was_handled_beside_held_records_is_handled_once_and_committed_up_to_the_first_of_them() -> None:
    handler = Handler(bad=values(LIMIT + 1, first=3))
    fused = Fused(handler, [*arrivals(3), Arrived(1, 0), *arrivals(LIMIT + 1, first=3)])
    fused.run(10)
    assert handler.handled == [*values(3), b"1/0"]
    assert fused.consumer.committed == [(0, 3), (1, 1)]
    handler.bad = set()
    fused.run(2)
    assert handler.handled == [*values(3), b"1/0", *values(LIMIT + 1, first=3)]
    assert fused.consumer.committed[-1] == (0, 3 + LIMIT + 1)


def test_what_was_handled_behind_a_held_record_is_committed_with_it() -> None:
    handler = Handler(bad=values(1))
    bad_ones = [Arrived(1, offset) for offset in range(LIMIT + 1)]
    handler.bad |= {record.value() for record in bad_ones}
    fused = Fused(handler, [*arrivals(3), *bad_ones])
    fused.run(3)
    assert handler.handled == values(2, first=1)
    assert fused.consumer.committed == []
    handler.bad = set()
    fused.run(2)
    assert handler.handled[2:] == [*values(1), *(record.value() for record in bad_ones)]
    assert sorted(fused.consumer.committed) == [(0, 3), (1, LIMIT + 1)]
