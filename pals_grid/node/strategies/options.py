"""Options of the ``pals-grid`` strategy: which features act, and their bounds."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Target(StrEnum):
    """What an engine has to be able to serve.

    ``demand``: what arrives and waits; the envelope's target counts only for requests that may
    wait. ``both``: at least the envelope's target as well, whether or not it is asked for.
    ``envelope``: the envelope's target alone; neither a queue nor a latency objective counts: for
    work whose only objective is a throughput (offline batches, the paper's experiments), where a
    queue always stands.
    """

    DEMAND = "demand"
    BOTH = "both"
    ENVELOPE = "envelope"


@dataclass(frozen=True, slots=True)
class ControlOptions:
    """Features, each of which may be switched off for an ablation, and bounds.

    ``feed_forward``: requests too many inside, prompts that wait and jumps of the arrivals raise
    the demand in the same tick. ``forecast``: the margin above the demand follows the variance
    of the arrivals and their trend; off: ``margin_ratio`` (of the demand) is fixed.
    ``latency``: measured misses adapt the part of the objectives that is planned with; off: the
    table's ITL within 80 % of the objective. ``part_load``: points are compared at the load that
    arrives (Little's law); off: saturated, and the slowdown counts for nothing. ``hysteresis``: an
    operating point is kept while another one gains little, and limits fall slowly. ``correction``:
    the table is corrected by what is measured. ``explore``: neighbouring limits are tried while the
    engine is saturated. ``tiers``: a short budget takes from the units of low priority first.
    ``clock_lock``: points with an SM clock count. ``tracking``: measured power moves the limit so
    that the draw follows a budget that binds. ``interpolate``: limits between the table's count.
    ``itl_tail``: the ITL objective is held by the 99th percentile of single tokens as well as by
    each request's mean.
    ``envelope_itl``: with the target ``envelope`` the ITL objective is held as well.

    ``max_slowdown_ratio`` bounds how much longer the mean ITL may be than at full power under the
    same load (0.05: by 5 %), whatever the objectives leave; infinite without a bound.
    ``budget_margin_ratio`` is the part of the envelope that is left free for noise.
    """

    target: Target = Target.DEMAND
    feed_forward: bool = True
    forecast: bool = True
    latency: bool = True
    part_load: bool = True
    hysteresis: bool = True
    correction: bool = True
    explore: bool = True
    tiers: bool = True
    clock_lock: bool = True
    tracking: bool = True
    interpolate: bool = True
    itl_tail: bool = False
    max_slowdown_ratio: float = math.inf
    envelope_itl: bool = False
    margin_ratio: float = 0.25
    budget_margin_ratio: float = 0.006

    def __post_init__(self) -> None:
        for name, high in (("margin_ratio", 5.0), ("budget_margin_ratio", 0.2)):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= high):
                raise InvalidValue(name, value, f"must be from 0 to {high:g}")
        if not self.max_slowdown_ratio >= 0:
            raise InvalidValue("max_slowdown_ratio", self.max_slowdown_ratio, "must be 0 or more")


_SWITCHES = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


def make_options(values: Mapping[str, object]) -> ControlOptions:
    """Options from named values: bools, numbers, or their text as on a command line.

    Raises:
        InvalidValue: names the option, its bound and the value.
    """
    known = {item.name: item for item in dataclasses.fields(ControlOptions)}
    read: dict[str, Any] = {}
    for name, value in values.items():
        field = name.replace("-", "_")
        if field not in known:
            raise InvalidValue("strategy option", name, f"must be one of {', '.join(known)}")
        read[field] = _value(field, known[field].default, value)
    return ControlOptions(**read)


def parse_options(pairs: Iterable[str]) -> ControlOptions:
    """Read ``name=value`` pairs, such as ``forecast=off`` or ``target=envelope``.

    Raises:
        InvalidValue: names the option, its bound and the value.
    """
    values: dict[str, str] = {}
    for pair in pairs:
        name, found, value = pair.partition("=")
        if not found:
            raise InvalidValue("strategy option", pair, "must be NAME=VALUE")
        values[name.strip()] = value.strip()
    return make_options(values)


def _value(name: str, default: object, value: object) -> object:
    if isinstance(default, Target):
        if value not in tuple(Target):
            raise InvalidValue(name, value, f"must be one of {', '.join(Target)}")
        return Target(str(value))
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        if str(value).lower() not in _SWITCHES:
            raise InvalidValue(name, value, "must be on or off")
        return _SWITCHES[str(value).lower()]
    try:
        return float(str(value))
    except ValueError as error:
        raise InvalidValue(name, value, "must be a number") from error
