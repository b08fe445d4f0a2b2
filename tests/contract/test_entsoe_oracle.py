"""Our reading of ENTSO-E's documents equals that of entsoe-py, value by value."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pals_grid_connectors.entsoe_xml import load_xml
from pals_grid_connectors.price.entsoe import Entsoe, read_generation

mappings = pytest.importorskip("entsoe.mappings", reason="entsoe-py is not installed")
parsers = pytest.importorskip("entsoe.parsers")

# It warns of its HTML parser and of calls that pandas is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore")
KNOWN_AT = datetime(2026, 5, 7, tzinfo=UTC)
FREQUENCY_OF_MINUTES = {15: "15min", 30: "30min", 60: "60min"}


def documents(shared_data: Path, kind: str) -> list[Path]:
    found = sorted((shared_data / "fixtures/entsoe").glob(f"*{kind}_*.xml"))
    assert found
    return found


def test_prices(shared_data: Path) -> None:
    compared = 0
    for path in documents(shared_data, "A44"):
        theirs = {
            (frequency, at.to_pydatetime().astimezone(UTC)): float(value)
            for frequency, series in parsers.parse_prices(path.read_text()).items()
            for at, value in series.items()
        }
        # entsoe-py does not part auctions: here each has a resolution of its own.
        ours = {
            (
                FREQUENCY_OF_MINUTES[round((item.end_at - item.start_at).total_seconds() / 60)],
                item.start_at,
            ): item.value
            for sequence in ("1", "2")
            for item in Entsoe({"sequence": sequence}).parse(path.read_bytes(), KNOWN_AT)
        }
        assert ours == theirs, path.name
        compared += len(ours)
    assert compared == 384


def test_generation(shared_data: Path) -> None:
    compared = 0
    for path in documents(shared_data, "A75"):
        theirs = {}
        for column, series in parsers.parse_generation(path.read_text()).items():
            plant, direction = column if isinstance(column, tuple) else (column, "Aggregated")
            for at, value in series.dropna().items():
                key = (plant, "Consumption" in direction, at.to_pydatetime().astimezone(UTC))
                theirs[key] = float(value)
        ours = {
            (
                mappings.PSRTYPE_MAPPINGS[item.series],
                item.is_consumption,
                item.interval.start_at,
            ): item.power_mw
            for item in read_generation(load_xml(path.read_bytes()), None)
        }
        assert ours == theirs, path.name
        compared += len(ours)
    assert compared > 2000
