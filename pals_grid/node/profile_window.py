"""What was counted over a window of a profile, and which windows stand for the steady state."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

AGREE_RATIO = 0.04


class Reading(NamedTuple):
    """Counters at an instant: tokens and requests of the engine, energy of all its GPUs."""

    at_s: float
    tokens_in: float
    tokens_out: float
    energy_j: float
    finished: int = 0
    prefills: int | None = None
    prefill_s: float | None = None


@dataclass(slots=True)
class Window:
    """What was seen between two readings; ``running`` sums the sequences seen at each poll."""

    first: Reading
    last: Reading
    polls: int = 0
    saturated: int = 0
    running: float = 0.0
    itl_p99_s: float | None = None

    @property
    def tokens_per_s(self) -> float:
        """Output tokens a second."""
        return (self.last.tokens_out - self.first.tokens_out) / self._seconds

    @property
    def power_w(self) -> float:
        """Draw of all GPUs."""
        return (self.last.energy_j - self.first.energy_j) / self._seconds

    @property
    def input_per_output(self) -> float | None:
        """Prompt tokens per output token; None before any came out."""
        tokens_out = self.last.tokens_out - self.first.tokens_out
        if tokens_out <= 0:
            return None
        return (self.last.tokens_in - self.first.tokens_in) / tokens_out

    @property
    def ttft_s(self) -> float | None:
        """Mean time from a request's admission to its first token, where the engine tells."""
        first, last = self.first, self.last
        if None in {first.prefills, last.prefills, first.prefill_s, last.prefill_s}:
            return None
        count = (last.prefills or 0) - (first.prefills or 0)
        return ((last.prefill_s or 0.0) - (first.prefill_s or 0.0)) / count if count > 0 else None

    @property
    def itl_s(self) -> float | None:
        """Mean time between the tokens of a sequence, by Little's law.

        Where the engine does not tell its time to the first token, that is spread over the rest.
        """
        rate = self.tokens_per_s
        if rate <= 0 or not self.polls:
            return None
        inside_s = self.running / self.polls / rate
        tokens_out = self.last.tokens_out - self.first.tokens_out
        prompt_s = (self.ttft_s or 0.0) * (self.last.finished - self.first.finished) / tokens_out
        return max(0.0, inside_s - prompt_s)

    def joined(self, later: Window) -> Window:
        """Both as one."""
        return Window(
            self.first,
            later.last,
            self.polls + later.polls,
            self.saturated + later.saturated,
            self.running + later.running,
            later.itl_p99_s,
        )

    @property
    def _seconds(self) -> float:
        return self.last.at_s - self.first.at_s


def choose_window(pieces: Sequence[Window], input_per_output: float | None) -> tuple[Window, float]:
    """Return the latest pieces that are nearest to a steady state, and how far they are off.

    In steady state prompts are taken in as fast as answers come out: among the last two or more
    pieces together, those whose mix is nearest to ``input_per_output`` are taken, and the
    distance is relative to it. So a wave of prompts, or its echo a batch later, is left out or
    counted whole. Where the mix is not known the last two pieces are taken; the distance is the
    larger of what their throughput and their power differ by.
    """
    if not input_per_output:
        before, last = pieces[-2:]
        return before.joined(last), max(
            _distance(before.tokens_per_s, last.tokens_per_s),
            _distance(before.power_w, last.power_w),
        )
    ends = itertools.accumulate(reversed(pieces), lambda later, earlier: earlier.joined(later))
    wholes = list(ends)[1:]
    offs = [_distance(whole.input_per_output or 0.0, input_per_output) for whole in wholes]
    nearest = min(range(len(wholes)), key=lambda i: (offs[i] > AGREE_RATIO, offs[i]))
    return wholes[nearest], offs[nearest]


def _distance(found: float, wanted: float) -> float:
    return abs(found - wanted) / wanted if wanted > 0 else float(found != wanted)
