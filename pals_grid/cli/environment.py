"""The process's environment, read in this one place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pals_grid.settings import load_settings

if TYPE_CHECKING:
    from pals_grid.settings import Settings


def read_settings() -> Settings:
    """Settings of this process.

    Raises:
        ConfigurationError: names the variable, its bound and the value.
    """
    return load_settings(os.environ)
