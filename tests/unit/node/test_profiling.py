"""Profiles of a simulated unit, whose model is known, and of fakes that misbehave."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import DeviceLost, InvalidValue
from pals_grid.core.fleet import Origin
from pals_grid.core.site import Slo
from pals_grid.node.fake import FakeClockGpu, FakeEngine, FakeGpu
from pals_grid.node.hardware import EngineUnit
from pals_grid.node.profiling import profile_unit
from pals_grid.node.restore import RestoreFile
from pals_grid.powermodel.sampling import Cell
from pals_grid.powermodel.table import operating_point
from pals_grid.sim.arrivals import saturating
from pals_grid.sim.clock import SimClock
from pals_grid.sim.demo import DEMO_SPEC
from pals_grid.sim.plant import SimNode
from tests.unit.node.conftest import START_AT, StepClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pals_grid.powermodel.profile import ProfileRow

MIX = 5.0
TOKENS_OUT = 200.0


class Bench:
    """Two fake GPUs under an engine whose speed follows limit, clock and batch at once."""

    def __init__(self, path: Path | None = None, *, lockable: bool = True) -> None:
        self.clock = StepClock()
        kind = FakeClockGpu if lockable else FakeGpu
        self.gpus = (kind("a"), kind("b"))
        self.engine = FakeEngine(max_num_seqs=32)
        self.engine.waiting = 5
        self.restore = RestoreFile(path)
        self.told: list[str] = []
        self.after: Callable[[Bench], None] = lambda _: None
        self.unit = EngineUnit("e", self.engine, self.gpus, None, Origin.SIMULATED)

    def wait(self, seconds: float) -> None:
        self.clock.step(seconds)
        self.after(self)
        batch = self.engine.max_num_seqs or 0
        self.engine.running = batch
        limit_w = min(gpu.limit_w for gpu in self.gpus)
        rate = batch * limit_w / 10 * min(gpu.sm_clock_mhz for gpu in self.gpus) / 1410
        self.engine.serve(rate * seconds, tokens_in=MIX * rate * seconds)
        for gpu in self.gpus:
            gpu.demand_w = gpu.limit_w
            gpu.run(seconds)

    def run(self, cells: Iterable[Cell], **options: object) -> list[ProfileRow]:
        rows = profile_unit(
            self.unit,
            cells,
            clock=self.clock,
            wait=self.wait,
            input_per_output=MIX,
            restore=self.restore,
            tell=self.told.append,
            **options,  # type: ignore[arg-type]
        )
        return list(rows)

    @property
    def untouched(self) -> bool:
        return (
            [gpu.limit_w for gpu in self.gpus] == [400.0, 400.0]
            and all(getattr(gpu, "lock_mhz", None) is None for gpu in self.gpus)
            and self.engine.max_num_seqs == 32
            and not self.restore.pending
            and not self.restore.pending_clocks
        )


@pytest.mark.parametrize("varied", [False, True])
def test_a_simulated_unit_measures_what_its_model_says(*, varied: bool) -> None:
    clock = SimClock(START_AT)
    spec = replace(DEMO_SPEC, max_num_seqs=64)
    load = saturating(MIX * TOKENS_OUT, TOKENS_OUT, varied=varied, seed=3)
    node = SimNode(clock, spec, load, seed=3)
    unit = EngineUnit("e", node.engine, node.gpus, None, Origin.SIMULATED)
    cells = [Cell(limit_w, batch) for batch in (4, 64) for limit_w in (400.0, 250.0)]
    rows = list(profile_unit(unit, cells, clock=clock, wait=clock.advance, input_per_output=MIX))
    assert [(row.power_limit_w, row.max_num_seqs) for row in rows] == [
        (cell.power_limit_w, cell.max_num_seqs) for cell in cells
    ]
    engine = spec.engine_model()
    for row in rows:
        point = operating_point(
            engine, row.power_limit_w, row.max_num_seqs, MIX * TOKENS_OUT, TOKENS_OUT
        )
        assert row.tokens_per_s == pytest.approx(point.tokens_per_s, rel=0.06)
        assert row.gpu_power_w == pytest.approx(point.gpu_power_w, rel=0.06)
        assert row.itl_s == pytest.approx(point.itl_s, rel=0.06)
        assert row.ttft_s is not None
        assert 0.5 * point.ttft_s < row.ttft_s < 2 * point.ttft_s
        assert (row.gpu_count, row.model, row.origin) == (4, spec.model, Origin.SIMULATED)
    assert [gpu.observe().power_limit_w for gpu in node.gpus] == [400.0] * 4
    assert node.engine.observe().max_num_seqs == 64


def test_each_cell_is_set_measured_and_put_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "limits.json")
    rows = bench.run([Cell(300.0, 8), Cell(200.0, 16, 705.0), Cell(200.0, 16)])
    assert [row.tokens_per_s for row in rows] == pytest.approx([240.0, 160.0, 320.0])
    assert [row.gpu_power_w for row in rows] == pytest.approx([600.0, 400.0, 400.0])
    assert [row.sm_clock_mhz for row in rows] == [None, 705.0, None]
    assert [row.itl_s for row in rows] == pytest.approx([8 / 240, 16 / 160, 16 / 320])
    assert {row.input_per_output for row in rows} == {MIX}
    assert bench.told == []
    assert bench.untouched


def test_originals_are_on_the_disk_before_the_first_write(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    bench = Bench(path)
    seen: list[tuple[bool, frozenset[str], list[float | None]]] = []

    def look(bench: Bench) -> None:
        locks = [write for gpu in bench.gpus for write in gpu.clock_writes]  # type: ignore[attr-defined]
        seen.append((path.exists(), RestoreFile(path).pending_clocks, locks))

    bench.after = look
    bench.run([Cell(300.0, 8), Cell(300.0, 8, 900.0)])
    assert all(there for there, _, _ in seen)
    assert all(clocks == {"a", "b"} for _, clocks, writes in seen if writes)
    assert next(clocks for _, clocks, writes in seen if not writes) == frozenset()
    assert bench.untouched


@pytest.mark.parametrize("how", ["wait", "close", "consumer"])
def test_everything_is_put_back_however_it_ends(how: str) -> None:
    bench = Bench()
    rows = profile_unit(
        bench.unit,
        [Cell(200.0, 8, 900.0), Cell(100.0, 8, 900.0)],
        clock=bench.clock,
        wait=bench.wait,
        input_per_output=MIX,
        restore=bench.restore,
    )
    next(rows)
    assert not bench.untouched

    def interrupt(_: Bench) -> None:
        raise KeyboardInterrupt

    if how == "wait":
        bench.after = interrupt
        with pytest.raises(KeyboardInterrupt):
            next(rows)
    elif how == "close":
        rows.close()
    else:
        with pytest.raises(OSError, match="full"), closing(rows):
            raise OSError("full")
    assert bench.untouched


def test_what_a_device_does_not_take_gives_no_row_and_a_reason() -> None:
    bench = Bench()
    assert bench.run([Cell(90.0, 8), Cell(300.0, 8, 100.0)]) == []
    assert "90 W, batch 8: no row: GPU a: 90 W clamped, reads back 100 W" in bench.told
    assert "300 W, batch 8, 100 MHz: no row: GPU a: 100 MHz clamped" in bench.told[1]
    bench.gpus[1].refuses = True
    assert bench.run([Cell(300.0, 8)]) == []
    assert "GPU b: 300 W refused" in bench.told[2]
    bench.gpus[1].refuses = False
    bench.engine.refuses = True
    assert bench.run([Cell(300.0, 8)]) == []
    assert "max_num_seqs: 8 sequences refused" in bench.told[-2]


def test_gpus_without_a_lock_give_free_cells_alone() -> None:
    bench = Bench(lockable=False)
    (row,) = bench.run([Cell(300.0, 8, 900.0), Cell(300.0, 8)])
    assert row.sm_clock_mhz is None
    assert bench.told == ["300 W, batch 8, 900 MHz: no row: GPU a: its SM clock cannot be locked"]
    assert bench.untouched


def test_an_engine_that_takes_no_batch_is_measured_at_its_own() -> None:
    bench = Bench()
    bench.engine.refuses = True
    rows = bench.run([Cell(300.0, 16), Cell(300.0, 32)], fixed_batch=32)
    assert [row.max_num_seqs for row in rows] == [32]
    assert bench.told == ["300 W, batch 16: no row: max_num_seqs is fixed at 32"]
    assert bench.engine.writes == []


def test_a_broken_objective_ends_the_way_down_and_spares_larger_batches() -> None:
    bench = Bench()
    cells = [Cell(w, batch) for batch in (8, 16) for w in (400.0, 200.0, 150.0, 100.0)]
    rows = bench.run(cells, slo=Slo(itl_s=0.06))  # 0.1 s per 100 W
    assert [(row.max_num_seqs, row.power_limit_w) for row in rows] == [
        (8, 400.0),
        (8, 200.0),
        (8, 150.0),  # the one that broke it
        (16, 400.0),
        (16, 200.0),
    ]
    assert "150 W, batch 8: ITL 67 ms breaks the objective" in bench.told
    assert sum("a faster cell broke the latency objective" in line for line in bench.told) == 3


def test_the_p99_counts_where_the_engine_tells_it() -> None:
    bench = Bench()
    observe = bench.engine.observe
    bench.engine.observe = lambda: replace(observe(), itl_p99_s=0.5)  # type: ignore[method-assign]
    rows = bench.run([Cell(400.0, 8), Cell(300.0, 8)], slo=Slo(itl_s=0.06))
    assert [row.itl_s for row in rows] == [pytest.approx(0.025)]  # the mean stays what is written
    assert "400 W, batch 8: ITL 500 ms breaks the objective" in bench.told


def test_a_hot_gpu_ends_cells_that_are_hotter_and_cools_down_first() -> None:
    bench = Bench()

    def heat(bench: Bench) -> None:
        bench.gpus[1].temperature_c = 90.0 if bench.gpus[1].limit_w > 300 else 70.0

    bench.after = heat
    rows = bench.run([Cell(350.0, 8), Cell(400.0, 8), Cell(400.0, 16), Cell(300.0, 16)])
    assert [row.power_limit_w for row in rows] == [300.0]
    assert bench.told[0] == "350 W, batch 8: no row: a GPU is at 90 C"
    assert all("a cooler cell was too hot" in line for line in bench.told[1:])
    assert len(bench.told) == 3
    assert bench.untouched


def test_an_idle_engine_gives_no_row() -> None:
    bench = Bench()

    def idle(bench: Bench) -> None:
        bench.engine.waiting = 0

    bench.after = idle
    bench.engine.max_num_seqs = None  # it does not tell either

    assert bench.run([Cell(300.0, 8)], fixed_batch=8) == []
    assert "not saturated" in bench.told[0]


def test_a_load_of_another_mix_gives_no_row() -> None:
    bench = Bench()
    serve = bench.engine.serve
    bench.engine.serve = lambda out, **_: serve(out, tokens_in=2 * out)  # type: ignore[method-assign]
    assert bench.run([Cell(300.0, 8)]) == []
    assert bench.told == [
        "300 W, batch 8: no row: 2.00 prompt tokens per output token, where 5.00 were expected"
    ]


def test_a_limit_that_someone_else_changes_gives_no_row() -> None:
    bench = Bench()

    def meddle(bench: Bench) -> None:
        bench.gpus[0].limit_w = 350.0

    bench.after = meddle
    assert bench.run([Cell(300.0, 8)]) == []
    assert "its limit reads back as 350 W" in bench.told[0]
    assert bench.untouched


def test_a_clock_that_does_not_hold_gives_no_row() -> None:
    bench = Bench()

    def meddle(bench: Bench) -> None:
        bench.gpus[0].sm_clock_mhz = 1200.0

    bench.after = meddle
    assert bench.run([Cell(300.0, 8, 900.0)]) == []
    assert "its SM clock is 1200 MHz, above the lock" in bench.told[0]


def test_a_device_that_is_gone_ends_the_profile_after_three_cells() -> None:
    bench = Bench()
    bench.engine.dead = True
    with pytest.raises(DeviceLost):
        bench.run([Cell(400.0 - i, 8) for i in range(9)])
    assert len(bench.told) == 3
    assert [gpu.limit_w for gpu in bench.gpus] == [400.0, 400.0]


def test_the_next_cell_is_asked_for_after_the_row_before_it() -> None:
    bench = Bench()
    got: list[ProfileRow] = []
    known: list[int] = []

    def cells() -> Iterable[Cell]:
        for limit_w in (400.0, 300.0):
            known.append(len(got))
            yield Cell(limit_w, 8)

    for row in profile_unit(
        bench.unit, cells(), clock=bench.clock, wait=bench.wait, input_per_output=None
    ):
        got.append(row)  # noqa: PERF402 - one by one is what is tested
    assert known == [0, 1]
    assert [row.input_per_output for row in got] == pytest.approx([MIX, MIX])


@pytest.mark.parametrize(
    ("field", "value"), [("settle_s", -1.0), ("measure_s", 0.5), ("measure_s", float("inf"))]
)
def test_times_that_measure_nothing_are_refused(field: str, value: float) -> None:
    with pytest.raises(InvalidValue, match=field):
        Bench().run([], **{field: value})


def test_a_failed_restore_is_told() -> None:
    bench = Bench()

    def break_it(bench: Bench) -> None:
        bench.gpus[1].refuses = True

    bench.after = break_it
    bench.run([Cell(300.0, 8)])
    assert bench.told == ["not restored: GPU b: original limit 400 W: refused: refused"]
    assert bench.restore.pending == {"b": 400.0}
