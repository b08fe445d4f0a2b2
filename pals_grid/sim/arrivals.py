"""Requests that arrive at a simulated engine: from a recorded trace, or drawn."""

from __future__ import annotations

import csv
import math
import random
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
        yield Request(
            arrival_s,
            _lognormal(draw, tokens_in, _SIGMA_IN),
            _lognormal(draw, tokens_out, _SIGMA_OUT),
            draw.random() < deferrable_ratio,
        )


def _lognormal(draw: random.Random, mean: float, sigma: float) -> int:
    return max(1, round(mean * math.exp(draw.gauss(0.0, sigma) - sigma * sigma / 2)))


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
