from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pals_grid.node.vllm import attach
from pals_grid.node.vllm.batch_control import BatchControl
from pals_grid.node.vllm.channel import DIRECTORY_VARIABLE, GROUP_VARIABLE, RankFile
from pals_grid.node.vllm.layout import BatchMode, Control
from tests.unit.node.vllm.fake_scheduler import FakeScheduler, requests, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pals_grid.node.vllm.layout import StepTelemetry


class Rig:
    """A scheduler under control, and the agent's end of its channel."""

    def __init__(self, channel: RankFile) -> None:
        self.now_s = 100.0
        self.channel = channel
        self.scheduler = FakeScheduler(running=requests(6), waiting=requests(6, 6))
        self.control = BatchControl(channel, monotonic_s=lambda: self.now_s)
        self.control.announce(self.scheduler)

    def tell(self, target: int, mode: BatchMode = BatchMode.DRAIN, generation: int = 1) -> None:
        self.channel.control.write(Control(generation, target, mode, self.now_s + 3.0))

    def schedule(self) -> SimpleNamespace:
        self.control.before(self.scheduler)
        output = self.scheduler.schedule()
        self.control.after(self.scheduler, output)
        return output

    def step(self) -> SimpleNamespace:
        output = self.schedule()
        self.control.updated(self.scheduler, output, tokens(output))
        self.now_s += 0.02
        return output

    @property
    def told(self) -> StepTelemetry:
        told = self.channel.telemetry.read()
        assert told is not None
        return told


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with RankFile.create_rank(tmp_path / "channel", 0) as channel:
        yield Rig(channel)


def test_the_engines_own_limit_is_known_before_the_first_step(rig: Rig) -> None:
    assert (rig.told.own_max_num_seqs, rig.told.max_num_seqs, rig.told.generation) == (8, 8, 0)


def test_without_a_target_vllm_is_left_alone(rig: Rig) -> None:
    assert len(rig.step().num_scheduled_tokens) == 8
    assert rig.scheduler.limits_seen == [8]


def test_drain_lets_nobody_in_and_keeps_those_who_are_there(rig: Rig) -> None:
    rig.tell(3)
    assert len(rig.step().num_scheduled_tokens) == 6
    del rig.scheduler.running[2:]
    assert len(rig.step().num_scheduled_tokens) == 3
    assert rig.scheduler.limits_seen == [6, 3]


def test_park_hides_requests_for_the_step_alone(rig: Rig) -> None:
    before = list(rig.scheduler.running)
    rig.tell(2, BatchMode.PARK)
    assert set(rig.step().num_scheduled_tokens) == {"r0", "r1"}
    assert rig.scheduler.running == before
    assert (rig.told.running, rig.told.parked, rig.told.waiting) == (2, 4, 6)


def test_who_vllm_takes_out_during_a_parked_step_stays_out(rig: Rig) -> None:
    rig.tell(3, BatchMode.PARK)
    rig.scheduler.waiting.clear()
    gone = rig.scheduler.running[1]
    schedule = rig.scheduler.schedule

    def preempting() -> SimpleNamespace:
        rig.scheduler.running.remove(gone)
        return schedule()

    rig.scheduler.schedule = preempting  # type: ignore[method-assign]
    rig.step()
    assert [r.request_id for r in rig.scheduler.running] == ["r0", "r2", "r3", "r4", "r5"]


def test_preempt_puts_the_newest_back_to_the_head_of_the_queue(rig: Rig) -> None:
    rig.tell(2, BatchMode.PREEMPT)
    output = rig.step()
    assert set(output.num_scheduled_tokens) == {"r0", "r1"}
    assert output.preempted_req_ids == {"r2", "r3", "r4", "r5"}
    assert [r.request_id for r in rig.scheduler.waiting[:4]] == ["r2", "r3", "r4", "r5"]
    assert rig.told.preemptions_total == 4


def test_preempt_goes_by_priority_where_vllm_does(rig: Rig) -> None:
    rig.scheduler.policy = SimpleNamespace(value="priority")  # type: ignore[attr-defined]
    rig.scheduler.running[0].priority = 9
    rig.tell(5, BatchMode.PREEMPT)
    assert rig.step().preempted_req_ids == {"r0"}


def test_preempting_by_priority_leaves_those_out_whose_last_token_is_on_its_way(rig: Rig) -> None:
    rig.scheduler.policy = SimpleNamespace(value="priority")  # type: ignore[attr-defined]
    rig.tell(4, BatchMode.PARK)
    rig.step()
    assert rig.told.parked == 2
    for request in rig.scheduler.running:  # their last token is still on its way
        request.num_output_placeholders = 1
    rig.scheduler.running[4].priority = 9
    rig.tell(5, BatchMode.PREEMPT, generation=2)
    step = rig.step()  # an engine that finds more in its batch than its limit dies
    assert step.preempted_req_ids == {"r4"}
    assert set(step.num_scheduled_tokens) == {"r0", "r1", "r2", "r3"}  # not r5 twice
    assert rig.told.parked == 1
    assert rig.told.errors_total == 0


@pytest.mark.parametrize("ending", ["its result", "a second"])
def test_nobody_comes_in_while_a_step_from_before_the_preemption_is_under_way(
    rig: Rig, ending: str
) -> None:
    first = rig.schedule()  # its result is not in yet
    rig.tell(5, BatchMode.PREEMPT)
    second = rig.schedule()
    assert len(second.preempted_req_ids) == 3
    rig.tell(8, generation=2)
    assert len(rig.schedule().num_scheduled_tokens) == 5
    if ending == "its result":
        rig.control.updated(rig.scheduler, first, tokens(first))
    else:
        rig.now_s += 1.0
    assert len(rig.schedule().num_scheduled_tokens) == 8


def test_with_a_kv_connector_preempt_drains(rig: Rig) -> None:
    rig.scheduler.connector = object()
    rig.tell(2, BatchMode.PREEMPT)
    assert len(rig.step().num_scheduled_tokens) == 6


def test_from_0_31_on_the_slot_count_is_never_touched(rig: Rig) -> None:
    rig.scheduler.max_num_active_reqs = 7  # type: ignore[attr-defined]
    rig.tell(3, BatchMode.PARK)
    assert len(rig.step().num_scheduled_tokens) == 3
    assert rig.scheduler.max_num_running_reqs == 8
    assert rig.scheduler.max_num_active_reqs == 7  # type: ignore[attr-defined]
    assert rig.told.own_max_num_seqs == 7


def test_after_the_lease_vllm_has_its_own_limit(rig: Rig) -> None:
    rig.tell(2, BatchMode.PREEMPT)
    rig.step()
    rig.now_s += 3.0
    assert len(rig.step().num_scheduled_tokens) == 8
    assert (rig.told.generation, rig.told.lapses_total, rig.told.max_num_seqs) == (0, 1, 8)


def test_when_vllm_raises_its_batch_and_limit_are_as_before(rig: Rig) -> None:
    before = list(rig.scheduler.running)
    rig.tell(2, BatchMode.PARK)
    rig.scheduler.max_num_running_reqs = 8
    rig.control.before(rig.scheduler)
    assert len(rig.scheduler.running) == 2
    rig.control.after(rig.scheduler, None)
    assert (rig.scheduler.running, rig.scheduler.max_num_running_reqs) == (before, 8)


def test_a_fault_of_ours_is_counted_logged_once_and_leaves_the_step_to_vllm(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.channel.control.write(Control(1, 2, 77, rig.now_s + 3.0))  # a mode that nobody knows
    for _ in range(3):
        assert len(rig.step().num_scheduled_tokens) == 8
    assert rig.told.errors_total == 3
    assert len(caplog.records) == 1


def test_after_a_fault_amid_preemption_nobody_comes_back_in_the_same_step(rig: Rig) -> None:
    rig.scheduler.broken = True
    rig.tell(2, BatchMode.PREEMPT)
    assert len(rig.step().num_scheduled_tokens) == 5
    rig.tell(0, generation=2)
    assert len(rig.step().num_scheduled_tokens) == 8


def test_a_fault_in_counting_hurts_nobody(rig: Rig) -> None:
    del rig.scheduler.kv_cache_manager
    assert len(rig.step().num_scheduled_tokens) == 8
    assert rig.control.errors == 1


def test_steps_and_tokens_are_counted(rig: Rig) -> None:
    rig.step()
    rig.step()
    told = rig.told
    assert (told.steps_total, told.tokens_out_total, told.tokens_in_total) == (2, 16, 20)
    assert (told.prefill_tokens, told.decode_tokens) == (0, 8)
    assert told.kv_usage_ratio == 0.25


def test_phases_are_told_apart_by_the_size_of_a_chunk(rig: Rig) -> None:
    meter = rig.control.meter
    output = SimpleNamespace(
        total_num_scheduled_tokens=124,
        num_scheduled_tokens={"a": 1, "b": 120, "c": 3},
        scheduled_spec_decode_tokens={"c": [5, 6]},
        scheduled_new_reqs=[],
        preempted_req_ids=None,
    )
    meter.scheduled(rig.scheduler, output, 0.0)
    assert (meter.prefill_tokens, meter.decode_tokens) == (120, 4)


def test_a_step_takes_from_the_last_result_or_from_its_begin(rig: Rig) -> None:
    meter = rig.control.meter
    output = rig.scheduler.schedule()
    meter.scheduled(rig.scheduler, output, 10.0)
    meter.scheduled(rig.scheduler, output, 10.01)  # async: a second one is under way
    meter.updated(output, tokens(output, {"r0"}), 10.03)
    assert meter.step_s == pytest.approx(0.03)
    meter.updated(output, tokens(output), 10.05)
    assert meter.step_s == pytest.approx(0.02)
    assert meter.busy_s == pytest.approx(0.05)
    assert meter.finished == 1


def test_prompt_tokens_that_wait_are_told(rig: Rig) -> None:
    rig.scheduler.waiting[5].num_computed_tokens = 0
    rig.scheduler.waiting[5].num_tokens = 500
    rig.step()
    assert rig.told.prompt_tokens_waiting == 500


def test_attaching_makes_the_ranks_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "channel"))
    monkeypatch.delenv(GROUP_VARIABLE, raising=False)
    assert attach.attach_scheduler(FakeScheduler(rank=5)) is not None
    with RankFile.open(tmp_path / "channel" / "rank-5", RankFile.SIZE) as file:
        assert file.telemetry.read() is not None
    assert attach.attach_front(5) is not None


@pytest.mark.parametrize("trouble", ["directory", "group"])
def test_where_attaching_fails_vllm_goes_on_without_us(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trouble: str,
) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "channel"))
    if trouble == "directory":
        (tmp_path / "channel").mkdir()
        (tmp_path / "channel").chmod(0o777)
    else:
        monkeypatch.setenv(GROUP_VARIABLE, "no-such-group-anywhere")
    assert attach.attach_scheduler(FakeScheduler()) is None
    assert attach.attach_front(0) is None
    assert "no batch control" in caplog.text


def test_importing_the_package_imports_no_vllm() -> None:
    program = (
        "import sys, pals_grid.node.vllm, pals_grid.node.vllm.engine\n"
        "sys.exit(any(name.split('.')[0] in {'vllm', 'torch', 'numpy'} for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
