"""Requests that arrive at a simulated engine: from a recorded trace, or drawn.

Everything drawn here is synthetic, also where its rates come from a measured envelope.
"""

from __future__ import annotations

import csv
import itertools
import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from pals_grid.core.errors import InvalidValue
from pals_grid.core.units import S_PER_H

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_MOST_TOKENS = 10_000_000
#: Mean lengths of AzureLLMInferenceTrace_conv_2023 (github.com/Azure/AzurePublicDataset,
#: commit b469a11, CC-BY): 1155 prompt and 211 output tokens at 5.53 requests/s. The log-normal
#: shapes are assumed.
AZURE_TOKENS_IN = 1155.0
AZURE_TOKENS_OUT = 211.0
AZURE_RATE_PER_S = 5.53
_SIGMA_IN = 1.0
_SIGMA_OUT = 0.8
_MU_IN, _MU_OUT = -_SIGMA_IN * _SIGMA_IN / 2, -_SIGMA_OUT * _SIGMA_OUT / 2
_ENVELOPE_COLUMNS = (
    "model",
    "t_s",
    "rate_rps",
    "mean_client_cv",
    "mean_input_tokens",
    "mean_output_tokens",
)
#: Gaps are Gamma-distributed with this range of the coefficient of variation; beyond 5 a window
#: holds one burst and little else.
_CV_LOW, _CV_HIGH = 0.2, 5.0
_DAILY_SWING = 0.4
_PEAK_HOUR = 15.0


class Request(NamedTuple):
    """One request, ``arrival_s`` seconds after the node's start."""

    arrival_s: float
    tokens_in: int
    tokens_out: int
    deferrable: bool = False


def load_trace(lines: Iterable[str], deferrable_ratio: float = 0.0) -> list[Request]:
    """Read a CSV of the AzureLLMInferenceTrace form; its first request arrives at 0 s.

    Timestamps are UTC without an offset, as published. ``deferrable_ratio`` of the requests,
    evenly spread, are marked deferrable (the traces do not say; this is an assumption).

    Raises:
        InvalidValue: names line, column and value.
    """
    if not 0 <= deferrable_ratio <= 1:
        raise InvalidValue("deferrable_ratio", deferrable_ratio, "must be from 0 to 1")
    reader = csv.DictReader(lines)
    header = tuple(reader.fieldnames or ())
    if not set(_COLUMNS) <= set(header):
        raise InvalidValue("trace header", header, f"must hold {', '.join(_COLUMNS)}")
    rows = [
        (
            _instant(reader.line_num, row),
            _tokens(reader.line_num, row, _COLUMNS[1]),
            _tokens(reader.line_num, row, _COLUMNS[2]),
        )
        for row in reader
    ]
    if not rows:
        raise InvalidValue("trace", 0, "must hold at least one request")
    rows.sort(key=lambda row: row[0])
    first_at = rows[0][0]
    return [
        Request((at - first_at).total_seconds(), tokens_in, tokens_out, marked)
        for (at, tokens_in, tokens_out), marked in zip(
            rows, _evenly(deferrable_ratio, len(rows)), strict=True
        )
    ]


def cut(
    trace: Sequence[Request], start_s: float, duration_s: float, scale: float = 1.0
) -> list[Request]:
    """Return the part of a trace that fills ``duration_s`` when played ``scale`` times as fast.

    It begins at ``start_s`` of the trace and covers ``duration_s * scale`` seconds of it; the
    rate is multiplied by ``scale`` and the lengths are kept.
    """
    _require("scale", scale, 0.0, 1e3)
    _require("duration_s", duration_s, 0.0, 1e9)
    if not 0 <= start_s < math.inf:
        raise InvalidValue("start_s", start_s, "must be 0 or more and finite")
    end_s = start_s + duration_s * scale
    last_s = trace[-1].arrival_s if trace else 0.0
    if end_s > last_s + 1.0:
        raise InvalidValue("start_s + duration_s * scale", end_s, f"the trace ends at {last_s:g}")
    return [
        request._replace(arrival_s=(request.arrival_s - start_s) / scale)
        for request in trace
        if start_s <= request.arrival_s < end_s
    ]


def daily_envelope(start_at: datetime, elapsed_s: float) -> float:
    """Synthetic daily shape with mean 1, ``elapsed_s`` after ``start_at``, which is in UTC.

    0.6 at 03:00 and 1.4 at 15:00.
    """
    hour = start_at.hour + (start_at.minute * 60 + start_at.second + elapsed_s) / S_PER_H
    return 1 + _DAILY_SWING * math.cos((hour - _PEAK_HOUR) * math.tau / 24)


def repeat_daily(
    trace: Sequence[Request],
    start_at: datetime,
    duration_s: float,
    *,
    seed: int,
    scale: float = 1.0,
) -> Iterator[Request]:
    """Synthetic: the trace over and over, played faster or slower after the daily envelope.

    The seed picks where in the trace it begins; nothing is copied or left out, so lengths and
    burstiness stay the trace's own. ``scale`` multiplies the rate.
    """
    if len(trace) < 2 or trace[-1].arrival_s <= trace[0].arrival_s:
        raise InvalidValue("trace", len(trace), "must span some time")
    if not 0 < scale <= 1e3:
        raise InvalidValue("scale", scale, "must be above 0 and at most 1000")
    end_gap_s = (trace[-1].arrival_s - trace[0].arrival_s) / (len(trace) - 1)
    i = random.Random(seed).randrange(len(trace))  # noqa: S311  # no secret
    arrival_s = 0.0
    while arrival_s < duration_s:
        request = trace[i]
        yield request._replace(arrival_s=arrival_s)
        i = (i + 1) % len(trace)
        gap_s = trace[i].arrival_s - request.arrival_s if i else end_gap_s
        arrival_s += gap_s / (scale * daily_envelope(start_at, arrival_s))


def poisson(
    rate_per_s: float,
    start_at: datetime,
    *,
    seed: int,
    tokens_in: float = AZURE_TOKENS_IN,
    tokens_out: float = AZURE_TOKENS_OUT,
    burst_ratio: float = 1.0,
    deferrable_ratio: float = 0.0,
) -> Iterator[Request]:
    """Synthetic and endless: Poisson arrivals of mean ``rate_per_s`` under the daily envelope.

    Bursts of ``burst_ratio`` times the rate last 30 s on average and begin every 10 min on
    average; the mean rate counts them in. Lengths are log-normal about their means.
    """
    if not 0 < rate_per_s <= 1e5:
        raise InvalidValue("rate_per_s", rate_per_s, "must be above 0 and at most 1e5")
    if burst_ratio < 1:
        raise InvalidValue("burst_ratio", burst_ratio, "must be 1 or more")
    draw = random.Random(seed)  # noqa: S311  # no secret
    quiet_s, burst_s = 600.0, 30.0
    base_per_s = rate_per_s * (quiet_s + burst_s) / (quiet_s + burst_ratio * burst_s)
    arrival_s, bursting, until_s = 0.0, False, draw.expovariate(1 / quiet_s)
    while True:
        factor = burst_ratio if bursting else 1.0
        rate = base_per_s * factor * daily_envelope(start_at, arrival_s)
        following_s = arrival_s + draw.expovariate(rate)
        if following_s >= until_s:
            arrival_s, bursting = until_s, not bursting
            until_s += draw.expovariate(1 / (burst_s if bursting else quiet_s))
            continue
        arrival_s = following_s
        yield _drawn(draw, arrival_s, tokens_in, tokens_out, deferrable_ratio)


def step_burst(  # noqa: PLR0913 - the shape of one burst
    base_rate_per_s: float,
    *,
    start_s: float,
    duration_s: float,
    seed: int,
    factor: float = 5.0,
    rise_s: float = 1.0,
    tokens_in: float = AZURE_TOKENS_IN,
    tokens_out: float = AZURE_TOKENS_OUT,
    deferrable_ratio: float = 0.0,
) -> Iterator[Request]:
    """Synthetic and endless: Poisson arrivals whose rate steps up once, and down again.

    From ``start_s`` the rate rises in a straight line within ``rise_s`` to ``factor`` times
    ``base_rate_per_s``, holds, and falls back as fast; ``duration_s`` is from the beginning of
    the rise to the beginning of the fall. Lengths are log-normal about their means.
    """
    _require("base_rate_per_s", base_rate_per_s, 0.0, 1e5)
    _require("factor", factor, 0.0, 1e3)
    _require("rise_s", rise_s, 0.0, duration_s)
    draw = random.Random(seed)  # noqa: S311  # no secret
    most = base_rate_per_s * max(1.0, factor)
    arrival_s = 0.0
    while True:
        arrival_s += draw.expovariate(most)
        up = min(1.0, max(0.0, (arrival_s - start_s) / rise_s))
        down = min(1.0, max(0.0, (arrival_s - start_s - duration_s) / rise_s))
        if draw.random() * most <= base_rate_per_s * (1 + (factor - 1) * (up - down)):
            yield _drawn(draw, arrival_s, tokens_in, tokens_out, deferrable_ratio)


@dataclass(frozen=True, slots=True)
class RateWindow:
    """One window of a rate envelope: ``cv`` is the coefficient of variation of the gaps."""

    start_s: float
    rate_per_s: float
    cv: float
    tokens_in: float
    tokens_out: float


def load_envelope(lines: Iterable[str], model: str) -> list[RateWindow]:
    """Read one model's windows from a CSV of ServeGen's 10-minute rates.

    Raises:
        InvalidValue: names line, column and value.
    """
    reader = csv.DictReader(lines)
    header = tuple(reader.fieldnames or ())
    if not set(_ENVELOPE_COLUMNS) <= set(header):
        raise InvalidValue("envelope header", header, f"must hold {', '.join(_ENVELOPE_COLUMNS)}")
    windows = [
        RateWindow(*(_figure(reader.line_num, row, name) for name in _ENVELOPE_COLUMNS[1:]))
        for row in reader
        if row["model"] == model
    ]
    if not windows:
        raise InvalidValue("model", model, "must have at least one window")
    return sorted(windows, key=lambda window: window.start_s)


def envelope(
    windows: Sequence[RateWindow],
    *,
    seed: int,
    scale: float = 1.0,
    window_s: float = 600.0,
    deferrable_ratio: float = 0.0,
) -> Iterator[Request]:
    """Synthetic requests under a measured envelope; it ends with the last window.

    Gaps are Gamma-distributed with each window's ``cv``, held to 0.2 to 5, in operational time:
    a window's mean number of requests is its rate times its length whatever the ``cv``. The
    published ``cv`` is a client's own; that of many clients together is lower, so bursts are
    rather too strong. A window that is missing has no requests. ``scale`` multiplies the rate;
    the first window begins at 0 s. Lengths are log-normal about the window's means.
    """
    _require("scale", scale, 0.0, 1e3)
    _require("window_s", window_s, 0.0, 1e6)
    steps = itertools.pairwise(window.start_s for window in windows)
    if not windows or any(b - a < window_s * 0.999 for a, b in steps):
        raise InvalidValue("windows", len(windows), f"must be {window_s:g} s apart or more")
    draw = random.Random(seed)  # noqa: S311  # no secret
    waiting = _gamma(draw, windows[0].cv)  # requests still to be expected before the next one
    for window in windows:
        expected = window.rate_per_s * scale * window_s
        done = 0.0
        while done + waiting < expected:
            done += waiting
            arrival_s = window.start_s - windows[0].start_s + window_s * done / expected
            yield _drawn(draw, arrival_s, window.tokens_in, window.tokens_out, deferrable_ratio)
            waiting = _gamma(draw, window.cv)
        waiting -= expected - done


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """A source that follows the service: ``waiting`` requests always stand in the queue."""

    waiting: int
    tokens_in: float
    tokens_out: float
    varied: bool
    draw: random.Random

    def request(self, now_s: float) -> Request:
        """Return the next request, which arrives at ``now_s``."""
        if self.varied:
            return _drawn(self.draw, now_s, self.tokens_in, self.tokens_out, 0.0)
        return Request(now_s, max(1, round(self.tokens_in)), max(1, round(self.tokens_out)))


def saturating(
    tokens_in: float = AZURE_TOKENS_IN,
    tokens_out: float = AZURE_TOKENS_OUT,
    *,
    seed: int = 0,
    waiting: int = 1,
    varied: bool = True,
) -> ClosedLoop:
    """Synthetic: as many requests as the engine takes, ``waiting`` of them always in its queue.

    Lengths are log-normal about their means, or all alike where not ``varied``.
    """
    if not 1 <= waiting <= 1e6:
        raise InvalidValue("waiting", waiting, "must be from 1 to 1e6")
    _require("tokens_in", tokens_in, 0.0, _MOST_TOKENS)
    _require("tokens_out", tokens_out, 0.0, _MOST_TOKENS)
    return ClosedLoop(waiting, tokens_in, tokens_out, varied, random.Random(seed))  # noqa: S311


def _drawn(
    draw: random.Random,
    arrival_s: float,
    tokens_in: float,
    tokens_out: float,
    deferrable_ratio: float,
) -> Request:
    # Two normal deviates from two uniform ones (Box-Muller), as `Random.gauss` makes a pair.
    angle = draw.random() * math.tau
    radius = math.sqrt(-2.0 * math.log(1.0 - draw.random()))
    return Request(
        arrival_s,
        round(tokens_in * math.exp(_MU_IN + math.cos(angle) * radius * _SIGMA_IN)) or 1,
        round(tokens_out * math.exp(_MU_OUT + math.sin(angle) * radius * _SIGMA_OUT)) or 1,
        draw.random() < deferrable_ratio,
    )


def _gamma(draw: random.Random, cv: float) -> float:
    """Draw a gap of mean 1 and the coefficient of variation ``cv``."""
    shape = min(_CV_HIGH, max(_CV_LOW, cv)) ** -2
    return draw.gammavariate(shape, 1 / shape)


def _require(name: str, value: float, above: float, most: float) -> None:
    if not above < value <= most:
        raise InvalidValue(name, value, f"must be above {above:g} and at most {most:g}")


def _evenly(ratio: float, count: int) -> Iterator[bool]:
    """``count`` marks of which ``ratio`` are set, spread as evenly as can be."""
    return (math.floor((i + 1) * ratio) > math.floor(i * ratio) for i in range(count))


def _instant(line: int, row: dict[str, str]) -> datetime:
    text = row[_COLUMNS[0]]
    try:
        instant = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"line {line}, TIMESTAMP", text, "must be an instant") from error
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _tokens(line: int, row: dict[str, str], column: str) -> int:
    text = row[column]
    try:
        tokens = int(text)
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"line {line}, {column}", text, "must be a whole number") from error
    if not 1 <= tokens <= _MOST_TOKENS:
        raise InvalidValue(f"line {line}, {column}", tokens, f"must be from 1 to {_MOST_TOKENS}")
    return tokens


def _figure(line: int, row: dict[str, str], column: str) -> float:
    text = row[column]
    try:
        figure = float(text)
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"line {line}, {column}", text, "must be a number") from error
    if not 0 <= figure < 1e9:
        raise InvalidValue(f"line {line}, {column}", figure, "must be from 0 to 1e9")
    return figure
