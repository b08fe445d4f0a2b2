"""If-Match: a change made against an old version is refused with 412, not 409."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from pals_grid.core.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def precondition(expected: int | None, load_version: Callable[[], int]) -> Iterator[None]:
    """Turn the conflict into 412 when it is the version that differs; other conflicts pass."""
    try:
        yield
    except Conflict as error:
        if expected is None or (current := load_version()) == expected:
            raise
        detail = f'If-Match: must be "{current}", the current version, got "{expected}"'
        raise HTTPException(412, detail) from error
