from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import ConfigurationError
from pals_grid.node.meters import choose, ipmi, polled, rapl
from pals_grid.node.meters.choose import MeterConfig, make_meter
from pals_grid.node.meters.ipmi import IpmiSource
from pals_grid.node.meters.polled import PolledNodeMeter
from pals_grid.node.node_meter import LinearNodeMeter
from pals_grid.powermodel.overhead import NodeOverhead

if TYPE_CHECKING:
    from pathlib import Path

OVERHEAD = NodeOverhead(400.0, 0.2)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any meter, and meters that start no thread."""
    monkeypatch.setattr(ipmi, "find_ipmi", lambda: None)
    monkeypatch.setattr(rapl, "ROOT", tmp_path)
    monkeypatch.setattr(polled.PolledNodeMeter, "start", lambda meter: meter)
    return tmp_path


def names(config: MeterConfig) -> list[str]:
    meter = make_meter(config, OVERHEAD)
    assert isinstance(meter, PolledNodeMeter)
    return [source.name for source in meter._sources]


def test_without_any_source_the_model_is_the_meter(machine: Path) -> None:
    assert machine.is_dir()
    for kind in ("auto", "linear"):
        assert isinstance(make_meter(MeterConfig(kind), OVERHEAD), LinearNodeMeter)


def test_auto_takes_what_the_machine_has_in_order(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "intel-rapl:0").mkdir()
    assert names(MeterConfig()) == ["rapl"]
    monkeypatch.setattr(ipmi, "find_ipmi", IpmiSource)
    assert names(MeterConfig()) == ["ipmi dcmi", "rapl"]
    url = "https://10.0.0.7"
    assert names(MeterConfig(url=url)) == ["redfish", "ipmi dcmi", "rapl"]
    assert names(MeterConfig("redfish", url=url)) == ["redfish"]


def test_a_meter_that_is_named_is_used_whether_it_is_found_or_not(machine: Path) -> None:
    assert machine.is_dir()
    assert names(MeterConfig("ipmi")) == ["ipmi dcmi"]
    assert names(MeterConfig("rapl")) == ["rapl"]


def test_the_rest_beside_rapl_is_half_the_base_unless_it_is_given(machine: Path) -> None:
    assert machine.is_dir()
    for rest_w, expected in ((None, 200.0), (90.0, 90.0)):
        meter = make_meter(MeterConfig("rapl", rest_w=rest_w), OVERHEAD)
        assert isinstance(meter, PolledNodeMeter)
        assert meter._rest_w == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "wattmeter"}, "must be one of auto, redfish, ipmi, rapl, linear"),
        ({"kind": "redfish"}, "node_meter_url: must be given with redfish"),
        ({"chassis": "1"}, "node_meter_chassis: needs node_meter_url"),
        ({"kind": "rapl", "url": "https://b"}, "node_meter_url: must be left out with rapl"),
    ],
)
def test_settings_that_do_not_go_together_are_told(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MeterConfig(**settings)  # type: ignore[arg-type]


def test_a_ca_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    config = MeterConfig(url="https://b", ca_file=tmp_path / "ca.pem")
    with pytest.raises(ConfigurationError, match="node_meter_ca_file: must be a file"):
        make_meter(config, OVERHEAD)
    assert choose.METERS[0] == "auto"
