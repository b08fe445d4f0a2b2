"""Taking signals.

Python runs a signal's handler in the main thread, between any two of its instructions: also while
it holds the lock of the very event that it waits on. A handler that sets that event then waits for
itself, for ever. So the handler only puts a note into a queue, which is safe there, and a thread
of its own does the rest.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


@contextlib.contextmanager
def signals_taken(numbers: Iterable[int], take: Callable[[int], None]) -> Iterator[None]:
    """Call ``take`` with each of these signals that comes, in a thread of its own.

    Does nothing outside the main thread, which alone can take signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: queue.SimpleQueue[int] = queue.SimpleQueue()

    def take_all() -> None:
        while number := came.get():
            take(number)

    taker = threading.Thread(target=take_all, name="pals-grid-signals", daemon=True)
    taker.start()
    before = {number: signal.signal(number, lambda n, _: came.put(n)) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
        came.put(0)
        taker.join()
