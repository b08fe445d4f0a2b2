"""The packaged fit: coefficients of the plant, and where each comes from.

``data/engines.json`` is written by ``pals-grid plant fit`` and read here once. It holds fitted
figures only, none of the sources' rows.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec

from pals_grid.core.errors import InvalidValue
from pals_grid.powermodel.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT_VERSION = 1


class FittedLaw(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The A100's power law and shared response; fields as in ``physics``."""

    static_w: float
    linear_share: float
    exponent: float
    spread_ratio: float
    min_frequency_ratio: float
    saturation_tokens: float


class FittedEngine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model of the A100 table: decode levels, prefill per prompt, shares that follow 1/f."""

    sheet_name: str
    rows: int
    limits_w: tuple[float, ...]
    running: tuple[float, ...]
    step_ms: tuple[float, ...]
    dynamic_w: tuple[float, ...]
    decode_cycles_share: float
    prompt_ms: float
    prompt_dynamic_w: float
    prefill_cycles_share: float


class LevelGroup(Deployment, frozen=True, forbid_unknown_fields=True):
    """Step time, draw and rate of a deployment against the batch, without a limit.

    ``power_w`` is per GPU and ``rate`` the output tokens/s of one sequence, both as measured
    over the source's whole steady state, prefill included.
    """

    rows: int
    measured_levels: tuple[float, ...]
    running: tuple[float, ...]
    step_ms: tuple[float, ...]
    power_w: tuple[float, ...]
    rate: tuple[float, ...]

    def at(self, running: float) -> tuple[float, float, float]:
        """(step in ms, watts per GPU, tokens/s of one sequence), straight in log-log."""
        return (
            between(self.running, self.step_ms, running),
            between(self.running, self.power_w, running),
            between(self.running, self.rate, running),
        )


def between(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """Interpolate in log-log, held at the ends."""
    if len(xs) == 1 or x <= xs[0]:
        return ys[0]
    if x >= xs[-1]:
        return ys[-1]
    i = bisect_right(xs, x) - 1
    share = math.log(x / xs[i]) / math.log(xs[i + 1] / xs[i])
    return math.exp((1 - share) * math.log(ys[i]) + share * math.log(ys[i + 1]))


class Trend(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Straight line in the features of ``features.feature_row``, for groups never seen.

    The logarithm of each target: step in ms, watts per GPU, tokens/s of one sequence.
    """

    source: str
    names: tuple[str, ...]
    step: tuple[float, ...]
    power: tuple[float, ...]
    rate: tuple[float, ...]


class FittedLink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A collective inside one node: ``latency_us + bytes / bytes_per_s``."""

    gpu_model: str
    operation: str
    gpu_count: int
    latency_us: float
    bytes_per_s: float
    mean_error_ratio: float


class FittedPlant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that was fitted."""

    version: int
    sources: dict[str, str]
    a100: FittedLaw
    engines: tuple[FittedEngine, ...]
    groups: tuple[LevelGroup, ...]
    trends: tuple[Trend, ...]
    links: tuple[FittedLink, ...]

    def trend(self, source: str) -> Trend | None:
        """Trend of a source, None where it was not fitted."""
        return next((trend for trend in self.trends if trend.source == source), None)


def decode_fit(payload: bytes) -> FittedPlant:
    """Read a fit.

    Raises:
        InvalidValue: when it is no fit, or of another version.
    """
    try:
        fit = msgspec.json.decode(payload, type=FittedPlant)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidValue("fit", str(error), "must be a file of `pals-grid plant fit`") from error
    if fit.version != FORMAT_VERSION:
        raise InvalidValue("fit.version", fit.version, f"must be {FORMAT_VERSION}")
    return fit


def encode_fit(fit: FittedPlant) -> bytes:
    """Write a fit, one line an item; four significant digits are far below the fit's error."""
    plain = _rounded(msgspec.to_builtins(fit))
    assert isinstance(plain, dict)
    parts = [b"%s: %s" % (_line(key), _block(value)) for key, value in plain.items()]
    return b"{\n" + b",\n".join(parts) + b"\n}\n"


def _block(value: object) -> bytes:
    if not isinstance(value, list):
        return _line(value)
    return b"[\n" + b",\n".join(_line(item) for item in value) + b"\n]"


def _line(value: object) -> bytes:
    return msgspec.json.encode(value)


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


@functools.cache
def packaged_fit() -> FittedPlant:
    """Return the fit that ships with the package."""
    return decode_fit(files("pals_grid.powermodel").joinpath("data/engines.json").read_bytes())
