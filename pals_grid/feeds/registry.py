"""Connectors found by the entry points of the group ``pals_grid.connectors``."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol, cast

from pals_grid.core.errors import ConfigurationError, InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pals_grid.core.ports import Connector, ConnectorOption, Pace

GROUP = "pals_grid.connectors"


class ConnectorType(Protocol):
    """The class of a connector: what it is and asks for, and how to make one."""

    @property
    def summary(self) -> str:
        """One line on what it reads."""
        ...

    @property
    def options(self) -> tuple[ConnectorOption, ...]:
        """Its settings."""
        ...

    @property
    def needs_secret(self) -> bool:
        """Whether it works only with a secret."""
        ...

    @property
    def pace(self) -> Pace | None:
        """What its provider allows; None where nobody says."""
        ...

    def __call__(self, options: Mapping[str, str]) -> Connector:
        """Make one; raises InvalidValue for options that cannot be."""
        ...


class ConnectorRegistry:
    """Every connector that is installed, loaded when first asked for."""

    def __init__(self, loaders: Mapping[str, Callable[[], ConnectorType]] | None = None) -> None:
        self._loaders = dict(loaders) if loaders is not None else _installed()

    def names(self) -> tuple[str, ...]:
        """Names of the connectors, ordered."""
        return tuple(sorted(self._loaders))

    def load(self, name: str) -> ConnectorType:
        """Load the class of a connector.

        Raises:
            InvalidValue: for a name that is not installed.
            ConfigurationError: when the package that holds it cannot be imported.
        """
        loader = self._loaders.get(name)
        if loader is None:
            raise InvalidValue("connector", name, f"must be one of {', '.join(self.names())}")
        try:
            return loader()
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(f"connector {name!r} cannot be loaded: {error}") from error

    def create(self, name: str, options: Mapping[str, str]) -> Connector:
        """Make a connector.

        Raises:
            InvalidValue: for a name that is not installed, or an option that cannot be.
            ConfigurationError: when the package that holds it cannot be imported.
        """
        return self.load(name)(options)


def _installed() -> dict[str, Callable[[], ConnectorType]]:
    return {
        point.name: cast("Callable[[], ConnectorType]", point.load)
        for point in entry_points(group=GROUP)
    }
