"""How well predictors do on rows that they were not fitted on."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

from pals_grid.core.errors import InvalidValue
from pals_grid.powermodel.sampling import Cell, choose_cells
from pals_grid.powermodel.train.engines import EngineKey, with_common_mix
from pals_grid.powermodel.train.fit import Kind, fit_predictor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pals_grid.powermodel.profile import ProfileRow

_Key = TypeVar("_Key", float, str)

#: What can be left out in turn, and which rows one turn leaves out together.
LEAVE_ONE = ("limit", "model", "batch")


@dataclass(frozen=True, slots=True)
class Error:
    """Errors of one row relative to what was measured."""

    throughput_ratio: float
    power_ratio: float


@dataclass(frozen=True, slots=True)
class Mape:
    """Mean absolute errors of ``n`` rows, relative to the measured value (0.03 is 3 %)."""

    n: int
    throughput_mape_ratio: float
    power_mape_ratio: float

    @staticmethod
    def of(errors: Sequence[Error]) -> Mape:
        """Mean of ``errors``, which are not empty."""
        return Mape(
            len(errors),
            fmean(error.throughput_ratio for error in errors),
            fmean(error.power_ratio for error in errors),
        )

    def to_json(self) -> dict[str, object]:
        """As JSON."""
        return {
            "n": self.n,
            "throughput_mape_ratio": round(self.throughput_mape_ratio, 6),
            "power_mape_ratio": round(self.power_mape_ratio, 6),
        }


@dataclass(frozen=True)
class Scores:
    """Errors of each predictor by row; ``unseen`` are rows of engines without a row in training.

    ``added`` are the cells that were moved from test to training, by model.
    """

    train_rows: int
    rows: list[ProfileRow] = field(default_factory=list)
    errors: dict[Kind, list[Error]] = field(default_factory=lambda: defaultdict(list))
    unseen: list[ProfileRow] = field(default_factory=list)
    unseen_errors: dict[Kind, list[Error]] = field(default_factory=lambda: defaultdict(list))
    added: dict[str, list[Cell]] = field(default_factory=dict)

    def overall(self, kind: Kind) -> Mape:
        """Over every row of an engine that training knew."""
        return Mape.of(self.errors[kind])

    def by_limit(self, kind: Kind) -> dict[float, Mape]:
        """By power limit per GPU in W, the lowest first."""
        groups = self._grouped(kind, lambda row: row.power_limit_w)
        return {limit_w: groups[limit_w] for limit_w in sorted(groups)}

    def by_model(self, kind: Kind) -> dict[str, Mape]:
        """By model."""
        groups = self._grouped(kind, lambda row: row.model)
        return {model: groups[model] for model in sorted(groups)}

    def join(self, other: Scores) -> None:
        """Take the rows of ``other`` in."""
        self.rows.extend(other.rows)
        self.unseen.extend(other.unseen)
        self.added.update(other.added)
        for kind, errors in other.errors.items():
            self.errors[kind].extend(errors)
        for kind, errors in other.unseen_errors.items():
            self.unseen_errors[kind].extend(errors)

    def _grouped(self, kind: Kind, key: Callable[[ProfileRow], _Key]) -> dict[_Key, Mape]:
        groups: dict[_Key, list[Error]] = defaultdict(list)
        for row, error in zip(self.rows, self.errors[kind], strict=True):
            groups[key(row)].append(error)
        return {name: Mape.of(errors) for name, errors in groups.items()}


def score(
    train: Sequence[ProfileRow],
    test: Sequence[ProfileRow],
    *,
    kinds: Sequence[Kind] = tuple(Kind),
    add_cells: int = 0,
    seed: int = 0,
) -> Scores:
    """Fit ``kinds`` on ``train`` and compare their predictions with ``test``.

    ``add_cells`` of each engine that training knows at one limit or not at all are first moved
    from test to training; ``sampling.choose_cells`` names them, without a look at their values.

    Raises:
        InvalidValue: where either is empty, or adding cells leaves nothing to test.
    """
    for name, rows in (("train", train), ("test", test)):
        if not rows:
            raise InvalidValue(name, 0, "must have at least one row")
    train, test, added = _move_cells(train, test, add_cells)
    if not test:
        raise InvalidValue("add_cells", add_cells, "must leave at least one row to test")
    predictor = fit_predictor(train, kinds=kinds, seed=seed)
    found = Scores(len(train), added=added)
    known = [predictor.knows(row) for row in test]
    found.rows.extend(row for row, is_known in zip(test, known, strict=True) if is_known)
    found.unseen.extend(row for row, is_known in zip(test, known, strict=True) if not is_known)
    for kind in kinds:
        for rows, errors in ((found.rows, found.errors), (found.unseen, found.unseen_errors)):
            for row, guess in zip(rows, predictor.predict(rows, kind) if rows else (), strict=True):
                errors[kind].append(
                    Error(
                        abs(guess.tokens_per_s / row.tokens_per_s - 1),
                        abs(guess.gpu_power_w / row.gpu_power_w - 1),
                    )
                )
    return found


def leave_one_out(
    rows: Sequence[ProfileRow],
    by: str,
    *,
    kinds: Sequence[Kind] = tuple(Kind),
    add_cells: int = 0,
    seed: int = 0,
) -> Iterator[Scores]:
    """Score each limit, model or batch of ``rows`` left out in turn, one result a turn.

    A model that is left out keeps the rows at its highest limit in training, as a model that is
    new on a node has been measured there only. A turn that leaves nothing to fit or test is
    passed over.

    Raises:
        InvalidValue: for another ``by``, or where no turn is possible.
    """
    if by not in LEAVE_ONE:
        raise InvalidValue("leave_one", by, f"must be one of {', '.join(LEAVE_ONE)}")
    possible = False
    for train, test in _turns(rows, by):
        if train and test:
            possible = True
            yield score(train, test, kinds=kinds, add_cells=add_cells, seed=seed)
    if not possible:
        raise InvalidValue("rows", len(rows), f"must have more than one {by} to leave one out")


def _turns(
    rows: Sequence[ProfileRow], by: str
) -> Iterator[tuple[list[ProfileRow], list[ProfileRow]]]:
    if by == "model":
        top_w = {row.model: 0.0 for row in rows}
        for row in rows:
            top_w[row.model] = max(top_w[row.model], row.power_limit_w)
        for model, limit_w in top_w.items():
            test = [row for row in rows if row.model == model and row.power_limit_w < limit_w]
            yield [row for row in rows if row not in test], test
        return
    name = {"limit": "power_limit_w", "batch": "max_num_seqs"}[by]
    for value in sorted({getattr(row, name) for row in rows}):
        test = [row for row in rows if getattr(row, name) == value]
        yield [row for row in rows if getattr(row, name) != value], test


def _move_cells(
    train: Sequence[ProfileRow], test: Sequence[ProfileRow], count: int
) -> tuple[list[ProfileRow], list[ProfileRow], dict[str, list[Cell]]]:
    added: dict[str, list[Cell]] = {}
    train, test = list(train), list(test)
    if count < 0:
        raise InvalidValue("add_cells", count, "must be 0 or more")
    if not count:
        return train, test, added
    alike = with_common_mix(test, train)
    keys = [EngineKey.of(row) for row in alike]
    for key in dict.fromkeys(keys):
        known = [row for row in with_common_mix(train) if EngineKey.of(row) == key]
        if len({row.power_limit_w for row in known}) > 1:
            continue
        mine = {_cell_of(row): row for row, own in zip(test, keys, strict=True) if own == key}
        chosen = choose_cells(known, list(mine), count)
        added[key.model] = [*added.get(key.model, []), *chosen]
        train.extend(mine[cell] for cell in chosen)
    moved = {id(row) for row in train}
    return train, [row for row in test if id(row) not in moved], added


def _cell_of(row: ProfileRow) -> Cell:
    return Cell(row.power_limit_w, row.max_num_seqs, row.sm_clock_mhz)
