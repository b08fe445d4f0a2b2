"""The plant against each measured set."""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

from pals_grid.core.errors import NotFound
from pals_grid.evaluate.plant_errors import RowError, Sample, SetReport
from pals_grid.powermodel import measured
from pals_grid.powermodel.coefficients import PROMPT_TOKENS, a100_engine
from pals_grid.powermodel.gpu_kinds import gpu_kind
from pals_grid.powermodel.physics import ClockResponse
from pals_grid.powermodel.served import find_group, predict_point
from pals_grid.powermodel.served_engine import engine_from_group
from pals_grid.powermodel.table import synchronous_round

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pals_grid.powermodel.fitted import FittedPlant, LevelGroup
    from pals_grid.powermodel.measured import LevelRow, LimitRow
    from pals_grid.powermodel.physics import EngineModel

Compared: TypeAlias = tuple[list[RowError], Counter[str]]
"""Errors of rows, and how many rows are in none of them, by the reason."""

TOKENS_OUT = 5.0
_GPU_BOUNDARY = "GPU boards only, by NVML"


def compare_limits(fit: FittedPlant, rows: Sequence[LimitRow]) -> Compared:
    """Errors on cells of the A100 table."""
    engines = {fitted.sheet_name: (fitted, a100_engine(fitted, fit)) for fitted in fit.engines}
    errors, unused = [], Counter[str]()
    for row in rows:
        if row.model not in engines:
            unused["a model that was not fitted"] += 1
            continue
        fitted, engine = engines[row.model]
        rate, draw_w = synchronous_round(engine, row.limit_w, row.batch, PROMPT_TOKENS, TOKENS_OUT)
        known = row.limit_w in fitted.limits_w and row.batch in fitted.running
        errors.append(
            RowError(
                model=row.model,
                gpu_model="A100",
                level=f"{row.limit_w:g}",
                sample=Sample.FITTED if known else Sample.HELD_OUT,
                throughput=rate / row.tokens_per_s - 1,
                power=draw_w / row.gpu_power_w - 1,
            )
        )
    return errors, unused


def compare_levels(fit: FittedPlant, rows: Sequence[LevelRow]) -> Compared:
    """Errors on served batch levels.

    A fitted group's step and draw are its engine's, as the simulator sees them, at the mean
    batch that the source states; throughput has prefill in it and is the fitted rate's.
    """
    engine_of = functools.cache(_engine)
    errors, unused = [], Counter[str]()
    for row in rows:
        point = predict_point(fit, row)
        if point is None:
            unused["a source that was not fitted"] += 1
            continue
        group = find_group(fit, row)
        step_ms, power_w, sample = point.step_ms, point.power_w, Sample.NEW_GROUP
        if group is not None:
            known = row.level in group.measured_levels
            sample = Sample.FITTED if known else Sample.HELD_OUT
            engine = engine_of(group)
            if engine is not None:
                mix = engine.phase_mix(row.running, engine.limit_range.max_w)
                step_ms, power_w = mix.decode_step_s * 1e3, mix.decode_w
        errors.append(
            RowError(
                model=row.model,
                gpu_model=row.gpu_model,
                level=f"{row.level:g}",
                sample=sample,
                throughput=point.rate * row.running / row.tokens_per_s - 1,
                power=power_w / row.power_w - 1,
                itl=step_ms / row.step_ms - 1,
            )
        )
    return errors, unused


def _engine(group: LevelGroup) -> EngineModel | None:
    try:
        return engine_from_group(group)
    except NotFound:
        return None


#: The traces' model: (model, task) of the benchmark whose runs they are; the two Qwen are the
#: gpqa runs of the thinking variants, as their draw at fitted levels shows.
_TRACE_MODELS = {
    "Llama-3.1-8B": ("meta-llama/Llama-3.1-8B-Instruct", "lm-arena-chat"),
    "Llama-3.1-70B": ("meta-llama/Llama-3.1-70B-Instruct", "lm-arena-chat"),
    "Llama-3.1-405B": ("meta-llama/Llama-3.1-405B-Instruct-FP8", "lm-arena-chat"),
    "Qwen3-30B-A3B": ("Qwen/Qwen3-30B-A3B-Thinking-2507", "gpqa"),
    "Qwen3-235B-A22B": ("Qwen/Qwen3-235B-A22B-Thinking-2507", "gpqa"),
}


def compare_traces(fit: FittedPlant, rows: Sequence[dict[str, str]]) -> Compared:
    """Mean draw of the 0.1 s traces; the batch is taken as full."""
    errors, unused = [], Counter[str]()
    for row in rows:
        group = _trace_group(fit, row)
        if group is None:
            unused["a model, task or number of GPUs that was not fitted"] += 1
            continue
        level = measured.number(row, "max_num_seqs")
        total_w = group.at(level)[1] * group.gpu_count
        known = level in group.measured_levels
        errors.append(
            RowError(
                model=row["model"],
                gpu_model="H100",
                level=f"{level:g}",
                sample=Sample.FITTED if known else Sample.HELD_OUT,
                power=total_w / measured.number(row, "steady_mean_W") - 1,
            )
        )
    return errors, unused


def _trace_group(fit: FittedPlant, row: dict[str, str]) -> LevelGroup | None:
    wanted = _TRACE_MODELS.get(row.get("model", ""))
    for group in fit.groups:
        same = (group.model, group.task) == wanted and group.gpu_model == "H100"
        if same and group.source == "mlenergy_v3" and str(group.gpu_count) == row.get("num_gpus"):
            return group
    return None


_MEMORY_BOUND = "inference_memory_bound"
_FULL_RATIO, _SLOW_RATIO = 0.98, 0.5


def compare_v100(rows: Sequence[dict[str, str]]) -> Compared:
    """Speed of the memory-bound kernel at lower clocks, by the A100's fitted response.

    Another kind of GPU: the form is tested, not the coefficients. Below half the highest clock
    the V100's memory slows down as well, which the plant leaves out.
    """
    bound = [row for row in rows if row.get("workload") == _MEMORY_BOUND]
    unused = Counter(
        f"{row.get('workload', '')}: the plant has no model of this kernel"
        for row in rows
        if row.get("workload") != _MEMORY_BOUND
    )
    top_mhz = max((measured.number(row, "sm_mean_mhz") for row in bound), default=0.0)
    full = [row for row in bound if measured.number(row, "sm_mean_mhz") > _FULL_RATIO * top_mhz]
    if not full:
        unused["no row at the highest clock to compare with"] += len(bound)
        return [], unused
    best = sum(measured.number(row, "iters_per_s") for row in full) / len(full)
    response = ClockResponse(gpu_kind("A100").moe_decode.cycles_share)
    errors = []
    for row in bound:
        f = measured.number(row, "sm_mean_mhz") / top_mhz
        if f > _FULL_RATIO:
            unused["at the highest clock: what the others are compared with"] += 1
        elif f < _SLOW_RATIO:
            unused["below half of the highest clock: its memory slows down, which is left out"] += 1
        else:
            modelled = best / response.time_ratio(f)
            error = modelled / measured.number(row, "iters_per_s") - 1
            name = f"{measured.number(row, 'sm_mean_mhz'):.0f}"
            errors.append(RowError("memory-bound kernel", "V100", name, Sample.NEW_GROUP, error))
    return errors, unused


def compare_collectives(fit: FittedPlant, folder: Path) -> Compared:
    """Times of collectives inside one node; as ``itl``, for they are a step's latency."""
    rows = measured.read_collectives(
        folder / measured.NCCL_TABLE, folder / measured.ALLREDUCE_TABLE
    )
    links = {(link.gpu_model, link.operation, link.gpu_count): link for link in fit.links}
    errors, unused = [], Counter[str]()
    for row in rows:
        link = links.get((row.gpu_model, row.operation, row.gpu_count))
        if link is None:
            unused["a collective or a number of GPUs that was not fitted"] += 1
        else:
            seconds = link.latency_us * 1e-6 + row.size_bytes / link.bytes_per_s
            errors.append(
                RowError(
                    model=f"{row.operation} x{row.gpu_count}",
                    gpu_model=row.gpu_model,
                    level=f"{row.size_bytes:.0f}",
                    sample=Sample.FITTED,
                    itl=seconds / row.seconds - 1,
                )
            )
    return errors, unused


def validate_sets(folder: Path, fit: FittedPlant) -> list[SetReport]:
    """Compare with every set that is in ``folder``."""
    reports = []
    if (folder / measured.A100_TABLE).is_file():
        compared = compare_limits(fit, measured.read_limits(folder / measured.A100_TABLE))
        reports.append(
            _report(
                "pals_author_a100",
                "4 x A100, MoE models, power limits x synchronous batches",
                ("measured", "limit_w"),
                compared,
            )
        )
    tables: tuple[tuple[str, str, str, Callable[[Path], list[LevelRow]]], ...] = (
        ("mlenergy_v3", "H100 and B200, batch levels", measured.V3_TABLE, measured.read_v3),
        ("mlenergy_v2", "A100-40GB and H100, batch levels", measured.V2_TABLE, measured.read_v2),
    )
    for name, what, table, read in tables:
        if (folder / table).is_file():
            compared = compare_levels(fit, read(folder / table))
            reports.append(_report(name, what, ("no limit in the set", "batch"), compared))
    reports += _smaller_sets(folder, fit)
    return reports


def _smaller_sets(folder: Path, fit: FittedPlant) -> list[SetReport]:
    reports = []
    if (folder / measured.TRACE_TABLE).is_file():
        compared = compare_traces(fit, measured.read_table(folder / measured.TRACE_TABLE))
        note = "the benchmark of mlenergy_v3, sampled: levels that are held out there are in here"
        what = "H100 power traces, steady mean"
        report = ("no limit in the set", "batch")
        reports.append(_report("gpu2grid_h100_power_traces", what, report, compared, (note,)))
    if (folder / measured.V100_TABLE).is_file():
        compared = compare_v100(measured.read_table(folder / measured.V100_TABLE))
        note = "form only: the A100's response on a V100"
        reports.append(
            _report(
                "gridpilot_v100",
                "V100 memory-bound kernel, limit x clock",
                ("measured", "clock_mhz"),
                compared,
                (note,),
            )
        )
    if (folder / measured.NCCL_TABLE).is_file():
        compared = compare_collectives(fit, folder)
        note = "as itl: seconds of one collective; between nodes the link is assumed"
        reports.append(
            _report(
                "aiconfigurator_ops",
                "collectives inside one node",
                ("does not follow the clock", "bytes"),
                compared,
                (note,),
            )
        )
    return reports


def _report(
    name: str,
    what: str,
    response: tuple[str, str],
    compared: Compared,
    notes: tuple[str, ...] = (),
) -> SetReport:
    errors, unused = compared
    return SetReport(
        name=name,
        what=what,
        boundary=_GPU_BOUNDARY,
        response_to_limit=response[0],
        level_name=response[1],
        errors=tuple(errors),
        unused=unused,
        notes=notes,
    )
