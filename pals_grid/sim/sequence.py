"""A request inside a simulated engine: first a prompt, then a sequence in decode."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pals_grid.sim.arrivals import Request


class Prompt:
    """A prompt in work; ``left_tokens`` are in no chunk yet."""

    __slots__ = ("admitted_s", "left_tokens", "request")

    def __init__(self, admitted_s: float, request: Request) -> None:
        self.admitted_s = admitted_s
        self.left_tokens = request.tokens_in
        self.request = request


class Running(NamedTuple):
    """A sequence in decode, ordered by the service at which it has its last token."""

    finish_tokens: float
    order: int
    admitted_s: float
    first_token_s: float
    request: Request
