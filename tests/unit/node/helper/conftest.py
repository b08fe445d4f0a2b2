from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.node.helper.rig import HelperRig

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def rig(tmp_path: Path) -> HelperRig:
    return HelperRig(tmp_path)
