"""Signals are taken outside the code that they interrupt."""

from __future__ import annotations

import signal
import threading

from pals_grid.node.stopping import signals_taken
from tests.waiting import PATIENCE_S


def test_a_signal_is__another_thread_than_the_one_it_interrupts() -> None:
    takers: list[tuple[int, threading.Thread]] = []
    done = threading.Event()

    def take(number: int) -> None:
        takers.append((number, threading.current_thread()))
        done.set()

    with signals_taken([signal.SIGTERM], take):
        signal.raise_signal(signal.SIGTERM)
    assert done.wait(PATIENCE_S)
    [(number, taker)] = takers
    assert number == signal.SIGTERM
    assert taker is not threading.main_thread()


def test_every_signal_is_taken_before_the_block_ends_and_handlers_are_put_back() -> None:
    numbers = [signal.SIGTERM, signal.SIGINT]
    before = [signal.getsignal(number) for number in numbers]
    taken: list[int] = []
    with signals_taken(numbers, taken.append):
        for number in (*numbers, *numbers):
            signal.raise_signal(number)
    assert taken == [*numbers, *numbers]
    assert [signal.getsignal(number) for number in numbers] == before


def test_outside_the_main_thread_nothing_is_touched() -> None:
    before = signal.getsignal(signal.SIGTERM)
    inside: list[object] = []

    def run() -> None:
        with signals_taken([signal.SIGTERM], lambda _: None):
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert inside == [before]
