"""An engine for GPUs that serve nothing known: power is logged, no token is counted."""

from __future__ import annotations

from pals_grid.core.commands import ActuationResult, Outcome
from pals_grid.core.ports import EngineSample


class NullEngine:
    """Never has a request, never changes."""

    def __init__(self, model: str = "none") -> None:
        self._model = model

    @property
    def model(self) -> str:
        """A placeholder for the served model."""
        return self._model

    def observe(self) -> EngineSample:
        """Return a sample of nothing."""
        return EngineSample(0, 0, 0.0, 0.0, 0, 0, 0, None)

    def apply_max_num_seqs(self, max_num_seqs: int) -> ActuationResult:
        """Refuse: there is no engine."""
        return ActuationResult(Outcome.REFUSED, max_num_seqs, None, "there is no engine")
