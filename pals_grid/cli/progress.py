"""A progress bar for work that tells the share of it that is done."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEPS = 1000


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[float], None]]:
    """A bar on stderr; call what it gives with the share that is done."""
    with click.progressbar(length=STEPS, label=label, file=sys.stderr) as bar:
        yield lambda ratio: bar.update(round(STEPS * ratio) - bar.pos)
