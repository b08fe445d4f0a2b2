"""What a suite is made of: jobs, their outcomes, and what is shown of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SIMULATED = "simulated plant"


@dataclass(frozen=True, slots=True)
class SuiteOptions:
    """What the whole run was asked for.

    ``trace_path`` None means that loads are synthetic (Poisson, the Azure trace's means).
    ``scratch`` is a folder that the run's processes share for profiled tables.
    """

    trace_path: Path | None
    scratch: Path
    seeds: int = 5
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One simulation (an oracle's: one search) of one case under one strategy and seed."""

    scenario: str
    case: str
    strategy: str
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job. ``series`` holds lines for the picture, of the first seed alone."""

    job: Job
    metrics: dict[str, float | None]
    series: dict[str, list[float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """One metric in the tables: its key, its head, and how to print it.

    ``scale`` multiplies the value (100 for a ratio in percent); ``meaning`` goes to the docs.
    """

    key: str
    head: str
    meaning: str
    digits: int = 1
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One acceptance bar, judged.

    ``value`` is what the bar is judged by, ``mean`` and ``half_width`` the mean over seeds and
    half its 95 % confidence interval, ``worst_seed`` the seed of the worst value. ``limit`` is
    the oracle's figure where there is one. ``sense`` is ``>=`` or ``<=``. None: not measured.
    """

    scenario: str
    name: str
    sense: str
    bound: float
    value: float | None
    mean: float | None = None
    half_width: float | None = None
    worst: float | None = None
    worst_seed: int | None = None
    limit: float | None = None
    unit: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the value is on the right side of the bound; None where nothing was measured."""
        if self.value is None:
            return None
        return self.value >= self.bound if self.sense == ">=" else self.value <= self.bound

    @property
    def distance(self) -> float | None:
        """How far on the right side the value is, in the bar's unit; negative when not met."""
        if self.value is None:
            return None
        return self.value - self.bound if self.sense == ">=" else self.bound - self.value


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it is printed; every cell is text, the first column stands to the left."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
