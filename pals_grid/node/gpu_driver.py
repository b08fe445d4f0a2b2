"""What the GPUs behind a driver share, whoever made them: opening, limits, losses and gaps."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from pals_grid.core.commands import ActuationResult, Outcome, judge
from pals_grid.core.errors import DeviceError, DeviceLost, DeviceUnsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pals_grid.core.ports import PowerLimitRange

log = logging.getLogger(__name__)

T = TypeVar("T")

REOPEN_S = 5.0
"""A lost GPU is looked up again this often: starting a library anew may take longer than a tick."""


def open_each(openers: Mapping[str, Callable[[], T | None]]) -> tuple[T, ...]:
    """Open the GPUs of a machine, each known to people by its key; one may be none.

    One that cannot be opened, because it fell off the bus or lacks its power cable, is left out
    and logged: the others have to be held all the same.

    Raises:
        DeviceError: when there are some and none can be opened.
    """
    found: list[T | None] = []
    failure: DeviceError | None = None
    for name, open_one in openers.items():
        try:
            found.append(open_one())
        except DeviceError as error:
            failure = error
            log.warning("%s is left out until a restart: %s", name, error)
    gpus = tuple(gpu for gpu in found if gpu is not None)
    if failure is not None and not gpus:
        raise failure
    return gpus


def set_power_limit(
    power_limit_w: float,
    bounds: PowerLimitRange,
    tolerance_w: float,
    write: Callable[[float], None],
    read: Callable[[], float],
) -> ActuationResult:
    """Write a limit inside ``bounds``, then judge by the one that reads back.

    0 and below are never written: to a driver they may mean no limit at all.
    """
    if not 0 < power_limit_w < 1e6:
        bound = f"power_limit_w: must be above 0, below 1e6, got {power_limit_w:g}"
        return ActuationResult(Outcome.REFUSED, power_limit_w, None, bound)
    try:
        write(min(max(power_limit_w, bounds.min_w), bounds.max_w))
        found_w = read()
    except DeviceError as error:
        return ActuationResult(Outcome.REFUSED, power_limit_w, None, str(error))
    detail = f"accepted are {bounds.min_w:g} to {bounds.max_w:g} W, {found_w:g} W reads back"
    return judge(power_limit_w, found_w, detail, tolerance_w)


class Reopening:
    """A look at a GPU that may be back under another index, or after its driver was reloaded."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._next_s = 0.0

    def look(self, observe: Callable[[], T], reopen: Callable[[], None]) -> T:
        """Observe; a lost GPU is reopened for it, but not at every look.

        Raises:
            DeviceError: as ``observe`` and ``reopen`` do.
        """
        try:
            return observe()
        except DeviceLost:
            now_s = self._monotonic_s()
            if now_s < self._next_s:
                raise
            self._next_s = now_s + REOPEN_S
            reopen()
            return observe()


class EnergyIntegral:
    """Joules of a board that does not count them: its power, in straight lines between looks."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._energy_j = 0.0
        self._before: tuple[float, float] | None = None

    def add(self, power_w: float) -> float:
        """Take the power that is drawn now; return the energy since the first look."""
        now_s = self._monotonic_s()
        if self._before is not None:
            then_s, then_w = self._before
            self._energy_j += (now_s - then_s) * (then_w + power_w) / 2
        self._before = now_s, power_w
        return self._energy_j


class OptionalReads:
    """Values that not every board has; one that is "not supported" is asked for no more."""

    def __init__(self, gpu: str) -> None:
        self._gpu = gpu
        self._lacking: set[str] = set()

    def read(self, name: str, ask: Callable[[], T]) -> T | None:
        """Return what ``ask`` gives; None where the board lacks it or does not tell it now.

        Raises:
            DeviceLost: as ``ask`` does.
        """
        if name in self._lacking:
            return None
        try:
            return ask()
        except DeviceLost:
            raise
        except DeviceUnsupported:
            self._lacking.add(name)
        except DeviceError as error:
            log.debug("GPU %s: %s", self._gpu, error)
        return None
