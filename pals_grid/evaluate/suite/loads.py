"""Loads of the scenarios: windows of a real trace where one is given, else synthetic."""

from __future__ import annotations

import heapq
import itertools
import random
from functools import lru_cache
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.evaluate.suite.drive import START_AT
from pals_grid.evaluate.suite.engines import a100_key
from pals_grid.sim.arrivals import (
    AZURE_TOKENS_IN,
    AZURE_TOKENS_OUT,
    load_trace,
    poisson,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pals_grid.core.fleet import FrontierTable
    from pals_grid.evaluate.suite.job import SuiteOptions
    from pals_grid.evaluate.suite.tables import TableKey
    from pals_grid.sim.arrivals import Request

TRACE_IN_DATA = ("llm-traces", "AzureLLMInferenceTrace_conv_2023.csv")


@lru_cache(maxsize=2)
def read_trace(path: Path) -> tuple[Request, ...]:
    """Read a trace once in each process.

    Raises:
        InvalidValue: when it cannot be read, naming line, column and value.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            trace = tuple(load_trace(lines))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue("trace", str(path), f"must be a readable CSV file ({error})") from error
    if len(trace) < 2 or trace[-1].arrival_s <= trace[0].arrival_s:
        raise InvalidValue("trace", len(trace), "must hold requests over some time")
    return trace


def trace_of(options: SuiteOptions) -> tuple[Request, ...] | None:
    """The trace that was asked for; None where loads are synthetic."""
    return read_trace(options.trace_path) if options.trace_path else None


def mean_rate_per_s(trace: tuple[Request, ...]) -> float:
    """Requests a second over the whole trace."""
    return (len(trace) - 1) / (trace[-1].arrival_s - trace[0].arrival_s)


def mean_tokens(trace: tuple[Request, ...] | None) -> tuple[float, float]:
    """Mean prompt and output tokens of a request, rounded: what a profile is made for."""
    if trace is None:
        return AZURE_TOKENS_IN, AZURE_TOKENS_OUT
    count = len(trace)
    tokens_in = sum(request.tokens_in for request in trace)
    tokens_out = sum(request.tokens_out for request in trace)
    return float(round(tokens_in / count)), float(max(1, round(tokens_out / count)))


def profile_for(model: str, options: SuiteOptions) -> TableKey:
    """The profile of one of the paper's engines under the mean request of the load."""
    return a100_key(model, *mean_tokens(trace_of(options)))


def rate_of(load: float, table: FrontierTable, tokens_out: float) -> float:
    """Requests a second that ask for the share ``load`` of what an engine serves at full power."""
    return load * max(point.tokens_per_s for point in table.points) / tokens_out


def until(end_s: float, requests: Iterable[Request]) -> Iterator[Request]:
    """Those that arrive before ``end_s``."""
    return itertools.takewhile(lambda request: request.arrival_s < end_s, requests)


def requests_at(
    trace: tuple[Request, ...] | None, rate_per_s: float, seed: int
) -> Iterator[Request]:
    """Endless requests of mean ``rate_per_s``.

    With a trace: it is laid over itself as often as the rate needs, each copy begun at another
    instant (by the seed) and played round; the last copy is thinned. Gaps within a copy and
    lengths are the trace's own, speed is not changed. Without: Poisson, log-normal lengths.
    """
    if trace is None:
        # The daily envelope of `poisson` is 1 at 21:00, and nearly so for an hour.
        return poisson(rate_per_s, START_AT.replace(hour=21), seed=seed)
    copies = rate_per_s / mean_rate_per_s(trace)
    draw = random.Random(seed)  # noqa: S311  # no secret
    parts = []
    while copies > 1e-9:
        share = min(1.0, copies)
        parts.append(_rotated(trace, draw.randrange(len(trace)), share, draw.randrange(2**31)))
        copies -= share
    return heapq.merge(*parts, key=lambda request: request.arrival_s)


def _rotated(trace: tuple[Request, ...], start: int, share: float, seed: int) -> Iterator[Request]:
    """The trace from its ``start``-th request on, round and round, ``share`` of it kept."""
    draw = random.Random(seed)  # noqa: S311  # no secret
    end_gap_s = 1 / mean_rate_per_s(trace)
    span_s = trace[-1].arrival_s - trace[0].arrival_s + end_gap_s
    origin_s = trace[start].arrival_s
    for k in itertools.count(start):
        turn, i = divmod(k, len(trace))
        if share >= 1.0 or draw.random() < share:
            request = trace[i]
            yield request._replace(arrival_s=request.arrival_s - origin_s + turn * span_s)
