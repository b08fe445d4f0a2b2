from __future__ import annotations

import threading

import pytest

from pals_grid.core.errors import DeviceError, DevicePermission
from pals_grid.core.fleet import Origin
from pals_grid.node.meters.polled import PolledNodeMeter
from pals_grid.powermodel.overhead import NodeOverhead
from tests.waiting import PATIENCE_S, wait_until

OVERHEAD = NodeOverhead(400.0, 0.2)


class Source:
    """Answers what the test puts there."""

    poll_s = 2.0

    def __init__(self, name: str = "meter", *, is_whole: bool = True) -> None:
        self.name = name
        self.is_whole = is_whole
        self.answer: float | DeviceError = 1000.0
        self.asked = 0

    def read_w(self) -> float:
        self.asked += 1
        if isinstance(self.answer, DeviceError):
            raise self.answer
        return self.answer


class Rig:
    def __init__(self, *sources: Source, rest_w: float = 0.0) -> None:
        self.now_s = 100.0
        self.sources = sources or (Source(),)
        self.meter = PolledNodeMeter(self.sources, OVERHEAD, rest_w, monotonic_s=lambda: self.now_s)

    def tick(self, gpu_power_w: float, seconds: float = 0.5) -> tuple[float, Origin, str]:
        self.now_s += seconds
        found = self.meter.observe_node_power(gpu_power_w)
        return found.power_w, found.origin, found.source


def test_until_the_first_reading_the_model_stands_in() -> None:
    rig = Rig()
    assert rig.tick(500.0) == (1000.0, Origin.MODELLED, "linear model")
    rig.sources[0].answer = 950.0
    assert rig.meter.poll() == 2.0
    assert rig.tick(500.0) == (950.0, Origin.MEASURED, "meter")


def test_a_reading_is_carried_on_by_the_change_of_gpu_power() -> None:
    rig = Rig()
    for _ in range(4):
        rig.tick(500.0)
    rig.sources[0].answer = 950.0
    rig.meter.poll()
    assert rig.tick(500.0)[0] == 950.0
    assert rig.tick(300.0) == (950.0 - 1.2 * 200, Origin.MEASURED, "meter")
    assert rig.tick(600.0)[0] == pytest.approx(950.0 + 1.2 * 100)


def test_a_reading_belongs_to_the_mean_gpu_power_before_it() -> None:
    rig = Rig()
    for power_w in (400.0, 400.0, 600.0, 600.0):
        rig.tick(power_w)
    rig.sources[0].answer = 1000.0
    rig.meter.poll()
    assert rig.tick(600.0)[0] == pytest.approx(1000.0 + 1.2 * 100)


def test_a_source_that_falls_silent_gives_way_to_the_model_and_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    rig.meter.poll()
    rig.sources[0].answer = DeviceError("no answer")
    for _ in range(4):
        rig.meter.poll()
    assert rig.tick(500.0, 9.0)[1:] == (Origin.MEASURED, "meter")
    assert rig.tick(500.0, 2.0) == (1000.0, Origin.MODELLED, "linear model (meter is silent)")
    assert caplog.text.count("no answer") == 1
    rig.sources[0].answer = 900.0
    with caplog.at_level("INFO"):
        rig.meter.poll()
    assert "node power is read from meter: 900 W" in caplog.text
    assert rig.tick(500.0)[1:] == (Origin.MEASURED, "meter")


def test_pauses_grow_and_a_refusal_is_not_repeated_soon() -> None:
    rig = Rig()
    rig.sources[0].answer = DeviceError("no answer")
    assert [rig.meter.poll() for _ in range(7)] == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    rig.sources[0].answer = DevicePermission("401")
    assert rig.meter.poll() == 300.0
    rig.sources[0].answer = 900.0
    assert rig.meter.poll() == 2.0
    rig.sources[0].answer = DeviceError("no answer")
    assert rig.meter.poll() == 2.0


def test_the_first_source_that_answers_is_kept_until_it_fails_five_times() -> None:
    first, second = Source("first"), Source("second")
    rig = Rig(first, second)
    first.answer = DeviceError("no")
    rig.meter.poll()
    assert rig.tick(500.0)[2] == "second"
    first.answer = 900.0
    rig.meter.poll()
    assert (first.asked, second.asked) == (1, 2)
    second.answer = DeviceError("no")
    for _ in range(5):
        rig.meter.poll()
    assert first.asked == 1
    rig.meter.poll()
    assert rig.tick(500.0)[:2] == (900.0, Origin.MEASURED)


def test_a_source_that_refuses_gives_way_to_another_at_once() -> None:
    first, second = Source("first"), Source("second")
    rig = Rig(first, second)
    rig.meter.poll()
    first.answer = DevicePermission("401")
    assert rig.meter.poll() == 2.0
    rig.meter.poll()
    assert rig.tick(500.0)[2] == "second"
    second.answer = DevicePermission("no right")
    assert rig.meter.poll() == 2.0
    assert rig.meter.poll() == 300.0


def test_cpus_alone_are_put_together_with_gpus_and_the_rest_as_a_model() -> None:
    rig = Rig(Source("rapl", is_whole=False), rest_w=150.0)
    rig.sources[0].answer = 250.0
    rig.meter.poll()
    assert rig.tick(500.0) == (
        150.0 + 1.2 * 750.0,
        Origin.MODELLED,
        "rapl and linear model",
    )


def test_a_reading_below_the_gpus_own_power_is_not_a_node(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    rig.tick(1000.0)
    rig.sources[0].answer = 350.0  # one supply of several, say
    rig.meter.poll()
    assert rig.tick(1000.0) == (
        1600.0,
        Origin.MODELLED,
        "linear model (meter is not the whole node)",
    )
    rig.meter.poll()
    rig.tick(1000.0)
    assert caplog.text.count("350 W is less than the GPUs' own 1000 W") == 1
    rig.sources[0].answer = 1450.0
    rig.meter.poll()
    assert rig.tick(1000.0) == (1450.0, Origin.MEASURED, "meter")


def test_node_power_never_falls_below_the_gpus_own() -> None:
    rig = Rig()
    rig.tick(500.0)
    rig.sources[0].answer = 450.0
    rig.meter.poll()
    assert rig.tick(500.0)[0] == 500.0


def test_a_source_that_hangs_makes_no_tick_wait() -> None:
    asked, release = threading.Event(), threading.Event()

    class Hanging(Source):
        def read_w(self) -> float:
            asked.set()
            assert release.wait(PATIENCE_S)
            return 777.0

    meter = PolledNodeMeter([Hanging()], OVERHEAD).start()
    try:
        assert asked.wait(PATIENCE_S)
        for _ in range(1000):  # all while it hangs
            assert meter.observe_node_power(500.0).origin is Origin.MODELLED
        release.set()
        wait_until(lambda: meter.observe_node_power(500.0).origin is Origin.MEASURED)
    finally:
        release.set()
        meter.close()


def test_a_refused_password_is_not_tried_again_beside_a_source_that_merely_fails() -> None:
    first, second = Source("first"), Source("second")
    rig = Rig(first, second)
    first.answer, second.answer = DevicePermission("401"), DeviceError("no answer")
    for _ in range(5):
        rig.meter.poll()
    assert (first.asked, second.asked) == (1, 5)
    rig.now_s += 300.0
    rig.meter.poll()
    assert first.asked == 2
