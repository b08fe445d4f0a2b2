"""Kinds of GPU: power law, limits, and how far each figure is measured.

- A100 SXM4: law, spread and shares are MEASURED, fitted on the limit x batch table (``fitted``).
- H100 SXM5, EXTRAPOLATED: the A100's fitted law at the H100's limit and clocks (static draw is
  the A100's share of its limit). Decode rests on two published figures of the H200, the same
  die: throughput did not change above 1590 of 1980 MHz (as quoted in a note), and a clock lock
  saved up to 32 % of decode energy (arXiv 2605.11999). The A100's own share would lose 11 % of
  throughput at 1590 MHz and save no more than 25 %, so that the knee is the quote's word.
- B200, EXTRAPOLATED and ASSUMED: idle draw 187-204 W is published (a board of eight, measured);
  static draw rests on it. Decode shares (the MoE's is close to the A100's) and law
  were chosen by hand to stay inside what Xenoscube published (2026-09 preprint): a limit at 85 %
  of natural draw costs 8-12 % of tokens/s and saves 16-20 % of power; the best limit alone gains
  26 % tokens/J for an MoE, 5.7 % for a dense model.
- The V100's measured memory-bound kernel (gridpilot E1) stands beside the A100: its speed at 945,
  1001 and 1270 MHz follows from the A100's share of 0.52 within 1.9 %.
- Prefill of H100 and B200, EXTRAPOLATED: a share of 0.8 follows the clock. What does not is the
  all-reduce: measured H100 kernels (aiconfigurator) give 24 % of an expert layer's time at 4096
  tokens on four GPUs (6 % at 64); the A100's fitted share is 0.63-0.70.

Peak rates are the data sheets' (dense bf16); ``compute_ratio`` is the share that prefill is
ASSUMED to reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from pals_grid.core.errors import NotFound
from pals_grid.core.ports import PowerLimitRange
from pals_grid.powermodel.fitted import packaged_fit
from pals_grid.powermodel.overhead import EIGHT_B200, EIGHT_H100, FOUR_A100
from pals_grid.powermodel.physics import ClockResponse, PowerLaw

if TYPE_CHECKING:
    from pals_grid.powermodel.fitted import FittedLaw
    from pals_grid.powermodel.overhead import NodeOverhead

_A100 = packaged_fit().a100
_H200_KNEE = 1590 / 1980


def a100_law(fitted: FittedLaw) -> PowerLaw:
    """Law of the A100 from a fit of its table; idle draw is a customary figure."""
    return PowerLaw(
        idle_w=55.0,
        static_w=fitted.static_w,
        linear_share=fitted.linear_share,
        exponent=fitted.exponent,
        min_frequency_ratio=fitted.min_frequency_ratio,
        max_clock_mhz=1410.0,
        spread_ratio=fitted.spread_ratio,
    )


A100_SXM4 = a100_law(_A100)
A100_DECODE_SHARE = fmean(engine.decode_cycles_share for engine in packaged_fit().engines)
A100_PREFILL_SHARE = fmean(engine.prefill_cycles_share for engine in packaged_fit().engines)
H100_SXM5 = PowerLaw(
    idle_w=70.0,
    static_w=_A100.static_w * 700 / 400,
    linear_share=_A100.linear_share,
    exponent=_A100.exponent,
    min_frequency_ratio=345 / 1980,
    max_clock_mhz=1980.0,
    spread_ratio=_A100.spread_ratio,
)
B200 = PowerLaw(
    idle_w=195.0,
    static_w=200.0,
    linear_share=0.65,
    exponent=3.0,
    min_frequency_ratio=345 / 1965,
    max_clock_mhz=1965.0,
    spread_ratio=_A100.spread_ratio,
)


@dataclass(frozen=True)
class GpuKind:
    """One kind; ``name`` is the part of the driver's name that fixes it.

    ``prefill_dynamic_w`` is that of a full chunk at the highest clock. ``overhead`` is that of a
    customary node, with ``node_gpus`` GPUs.
    """

    name: str
    law: PowerLaw
    limit_range: PowerLimitRange
    moe_decode: ClockResponse
    dense_decode: ClockResponse
    prefill: ClockResponse
    prefill_dynamic_w: float
    peak_flop_per_s: float
    memory_bytes_per_s: float
    node_gpus: int
    overhead: NodeOverhead
    limit_response: str
    compute_ratio: float = 0.45


KINDS = (
    GpuKind(
        name="A100",
        law=A100_SXM4,
        limit_range=PowerLimitRange(100.0, 400.0, 400.0),
        moe_decode=ClockResponse(A100_DECODE_SHARE),
        dense_decode=ClockResponse(A100_DECODE_SHARE),
        prefill=ClockResponse(A100_PREFILL_SHARE),
        prefill_dynamic_w=320.0,
        peak_flop_per_s=312e12,
        memory_bytes_per_s=2.04e12,
        node_gpus=4,
        overhead=FOUR_A100,
        limit_response="measured",
    ),
    GpuKind(
        name="H100",
        law=H100_SXM5,
        limit_range=PowerLimitRange(200.0, 700.0, 700.0),
        moe_decode=ClockResponse(0.08, 0.9, _H200_KNEE),
        dense_decode=ClockResponse(0.08, 0.9, _H200_KNEE),
        prefill=ClockResponse(0.8),
        prefill_dynamic_w=636.0,
        peak_flop_per_s=989e12,
        memory_bytes_per_s=3.35e12,
        node_gpus=8,
        overhead=EIGHT_H100,
        limit_response="extrapolated",
    ),
    GpuKind(
        name="B200",
        law=B200,
        limit_range=PowerLimitRange(300.0, 1000.0, 1000.0),
        moe_decode=ClockResponse(0.55),
        dense_decode=ClockResponse(0.9),
        prefill=ClockResponse(0.8),
        prefill_dynamic_w=1100.0,
        peak_flop_per_s=2250e12,
        memory_bytes_per_s=8.0e12,
        node_gpus=8,
        overhead=EIGHT_B200,
        limit_response="extrapolated",
    ),
)


def gpu_kind(gpu_model: str) -> GpuKind:
    """Kind of a GPU whose driver's name is ``gpu_model``.

    Raises:
        NotFound: when the plant has no such kind.
    """
    for kind in KINDS:
        if kind.name in gpu_model:
            return kind
    raise NotFound("power model of", gpu_model)
