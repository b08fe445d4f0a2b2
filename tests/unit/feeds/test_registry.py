import pytest
from pals_grid_connectors.synthetic import Synthetic

from pals_grid.core.errors import ConfigurationError, InvalidValue
from pals_grid.feeds.registry import ConnectorRegistry, ConnectorType


def broken() -> ConnectorType:
    raise ImportError("No module named 'left_pad'")


def test_the_installed_connectors_are_found() -> None:
    registry = ConnectorRegistry()
    assert {"entsoe", "file", "neso", "octopus_agile", "synthetic"} <= set(registry.names())
    assert registry.load("synthetic") is Synthetic
    assert isinstance(registry.create("synthetic", {"mean": "1"}), Synthetic)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    registry = ConnectorRegistry({"one": lambda: Synthetic, "another": lambda: Synthetic})
    with pytest.raises(InvalidValue, match="connector: must be one of another, one, got 'two'"):
        registry.create("two", {})


def test_a_broken_package_is_the_operator_s_to_correct() -> None:
    with pytest.raises(ConfigurationError, match="'one' cannot be loaded: No module named"):
        ConnectorRegistry({"one": broken}).create("one", {})
