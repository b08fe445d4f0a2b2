"""The mother of the processes that these tests kill."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.deploy.world import Mother

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def mother() -> Iterator[Mother]:
    mother = Mother()
    yield mother
    mother.end()
