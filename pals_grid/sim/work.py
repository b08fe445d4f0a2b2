"""What the phases of an engine's work take and draw, and how much of each was done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

_CHUNK_STEP = 256


class Draw(NamedTuple):
    """Draw of the GPUs in one phase, under the regulator and noise.

    GPU i draws ``even + die_ratio_i * die`` watts, each of them ``held + noise * noisy``, where
    ``noise`` is the node's draw noise, relative.
    """

    held_even_w: float
    held_die_w: float
    noisy_even_w: float
    noisy_die_w: float


class Phases(NamedTuple):
    """Times and draws with some sequences in decode and a chunk of prompts; see ``PhaseMix``."""

    prefill_token_s: float
    decode_step_s: float
    decode_bin: int
    clock_mhz: float
    prefill: Draw
    decode: Draw


PhaseTable: TypeAlias = Mapping[tuple[int, int], Phases]
"""Phases by the number of sequences in decode and the class of the chunk."""


def chunk_class(chunk_tokens: int) -> int:
    """Return the tokens by which chunks of about this size are computed, 0 for none."""
    return (chunk_tokens - 1) // _CHUNK_STEP * _CHUNK_STEP + _CHUNK_STEP // 2 if chunk_tokens else 0


class Work:
    """Sums over time of the draws since the last ``clear``, in joules, see ``Draw``.

    All are linear in time, so energy does not depend on how often it is looked at.
    """

    __slots__ = ("held_die_j", "held_even_j", "idle_s", "noisy_die_j", "noisy_even_j")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.held_even_j = self.held_die_j = self.noisy_even_j = self.noisy_die_j = 0.0
        self.idle_s = 0.0

    def add(self, prefill: Draw, decode: Draw, prefill_s: float, all_s: float) -> None:
        """Count ``all_s`` of work, of which ``prefill_s`` went to prompts."""
        decode_s = all_s - prefill_s
        if decode_s > 0:
            held_even_w, held_die_w, noisy_even_w, noisy_die_w = decode
            self.held_even_j += held_even_w * decode_s
            self.held_die_j += held_die_w * decode_s
            self.noisy_even_j += noisy_even_w * decode_s
            self.noisy_die_j += noisy_die_w * decode_s
        if prefill_s:
            held_even_w, held_die_w, noisy_even_w, noisy_die_w = prefill
            self.held_even_j += held_even_w * prefill_s
            self.held_die_j += held_die_w * prefill_s
            self.noisy_even_j += noisy_even_w * prefill_s
            self.noisy_die_j += noisy_die_w * prefill_s
