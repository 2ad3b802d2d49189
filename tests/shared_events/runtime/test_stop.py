"""Signals, as a process gets them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from shared_events.runtime.stop import StopSignal

WAITS = """
import time
from shared_events.runtime.stop import StopSignal
with StopSignal() as stop:
    print("ready", flush=True)
    stop.wait(60)
    print("received" if stop.received else "not received", flush=True)
"""
NEVER_LOOKS = """
import time
from shared_events.runtime.stop import StopSignal
with StopSignal() as stop:
    print("ready", flush=True)
    while not stop.received:
        time.sleep(0.01)
    print("received", flush=True)
    time.sleep(60)
"""
Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start_one(program: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_wait_promptly_and_in_order(start: Start, number: signal.Signals) -> None:
    process = start(WAITS)
    began = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert (output, process.returncode) == ("received\n", 0)
    assert time.monotonic() - began < 10


def test_a_second_signal_ends_the_process_at_once(start: Start) -> None:
    process = start(NEVER_LOOKS)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "received\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == -signal.SIGTERM


def test_the_former_handlers_come_back_after_the_block() -> None:
    former = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignal():
        assert signal.getsignal(signal.SIGTERM) is not former[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == former


def test_a_wait_without_a_signal_lasts_as_long_as_it_should() -> None:
    slices: list[int] = []
    began = time.monotonic()
    StopSignal().wait(0.25, each_slice=lambda: slices.append(1))
    assert time.monotonic() - began >= 0.25
    assert len(slices) == 3


def test_a_signal_in_the_middle_of_a_wait_ends_it() -> None:
    with StopSignal() as stop:
        timer = threading.Timer(0.15, lambda: os.kill(os.getpid(), signal.SIGTERM))
        timer.start()
        began = time.monotonic()
        stop.wait(30)
        timer.join()
    assert stop.received
    assert time.monotonic() - began < 10


def test_the_grace_counts_from_when_the_signal_was_noticed() -> None:
    stop = StopSignal()
    assert not stop.grace_is_over(0)
    stop.received = True
    assert stop.grace_is_over(0)
    assert not stop.grace_is_over(3600)
