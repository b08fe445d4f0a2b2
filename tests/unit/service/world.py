"""A service in a test's hands: its clock is set, and its providers say what they are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

from pals_grid.core.connecting import read_options
from pals_grid.core.fleet import Origin
from pals_grid.core.ports import ConnectorOption
from pals_grid.core.series import Observation, Quantity, ValueKind
from pals_grid.core.site import SitePolicy
from pals_grid.feeds.recorded import RecordedHttp
from pals_grid.feeds.registry import ConnectorRegistry
from pals_grid.planner.linear import plan_power_budget
from pals_grid.service.context import Context
from pals_grid.service.feeds import FeedRequest, add_feed
from pals_grid.service.nodes import issue_enrolment_token, register_node
from pals_grid.service.sites import create_site
from pals_grid.wire.messages import (
    CurvePoint,
    EngineRow,
    GpuDescription,
    NodeStatus,
    RegisterRequest,
    TelemetryBatch,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pals_grid.core.feed import Feed
    from pals_grid.core.intervals import Interval
    from pals_grid.core.ports import FetchContext, Pace, Rhythm
    from pals_grid.core.site import Site
    from pals_grid.feeds.registry import ConnectorType
    from pals_grid.store.engine import Database
    from pals_grid.wire.messages import RegisterReply

T0 = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
HALF_HOUR = timedelta(minutes=30)


@dataclass
class SetClock:
    at: datetime = T0

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return (self.at - T0).total_seconds()

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass
class Provider:
    """What the next fetch gives: values, or an error. Remembers what it was asked."""

    values: list[Observation] = field(default_factory=list)
    error: Exception | None = None
    windows: list[Interval] = field(default_factory=list)
    secrets: list[str | None] = field(default_factory=list)

    def say(
        self,
        *numbers: float,
        start_at: datetime = T0,
        unit: str = "EUR/MWh",
        kind: str = "forecast",
    ) -> None:
        self.error = None
        self.values = half_hours(numbers, start_at, unit=unit, kind=kind)


def half_hours(
    numbers: tuple[float, ...],
    start_at: datetime = T0,
    *,
    unit: str = "EUR/MWh",
    kind: str = "forecast",
    known_at: datetime | None = None,
) -> list[Observation]:
    return [
        Observation(
            start_at + HALF_HOUR * i,
            start_at + HALF_HOUR * (i + 1),
            number,
            unit,
            ValueKind(kind),
            known_at or min(start_at, T0),
        )
        for i, number in enumerate(numbers)
    ]


def connector_type(provider: Provider, of: Quantity, *, secret: bool) -> ConnectorType:
    class Scripted:
        summary: ClassVar[str] = "says what it is told"
        options: ClassVar[tuple[ConnectorOption, ...]] = (ConnectorOption("zone", "any", "DE"),)
        needs_secret: ClassVar[bool] = secret
        pace: ClassVar[Pace | None] = None
        quantity: ClassVar[Quantity] = of
        rhythm: ClassVar[Rhythm | None] = None

        def __init__(self, options: Mapping[str, str]) -> None:
            read_options(options, self.options)

        def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
            provider.windows.append(window)
            provider.secrets.append(context.secret)
            if provider.error is not None:
                raise provider.error
            return list(provider.values)

        def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
            raise NotImplementedError(payload, known_at)

    return Scripted


class World:
    """A context over a test's database, with shorthands for what most tests need."""

    def __init__(self, database: Database) -> None:
        self.clock = SetClock()
        self.price, self.carbon, self.marginal = Provider(), Provider(), Provider()
        price = connector_type(self.price, Quantity.PRICE, secret=False)
        carbon = connector_type(self.carbon, Quantity.AVERAGE_INTENSITY, secret=False)
        marginal = connector_type(self.marginal, Quantity.MARGINAL_INTENSITY, secret=False)
        keyed = connector_type(self.price, Quantity.PRICE, secret=True)
        registry = ConnectorRegistry(
            {
                "price": lambda: price,
                "carbon": lambda: carbon,
                "marginal": lambda: marginal,
                "keyed": lambda: keyed,
            }
        )
        self.context = Context(database, self.clock, registry, RecordedHttp({}), plan_power_budget)

    @property
    def database(self) -> Database:
        return self.context.database

    def make_site(self, slug: str = "oslo", **changes: object) -> Site:
        values: dict[str, object] = {
            "grid_connection_w": 10_000.0,
            "minimum_w": 500.0,
            "safe_limit_w": 3000.0,
            "demand_tokens_per_s": 100.0,
            **changes,
        }
        return create_site(self.context, SitePolicy(slug=slug, name=slug, **values))  # type: ignore[arg-type]

    def make_feed(self, connector: str = "price", name: str = "p", site: str = "oslo") -> Feed:
        return add_feed(self.context, FeedRequest(site, name, connector))

    def register(self, name: str = "gpu-1", site: str = "oslo", scale: float = 1) -> RegisterReply:
        token = issue_enrolment_token(self.context, site)
        return register_node(self.context, token, registration(name, scale))


def registration(name: str = "gpu-1", scale: float = 1.0) -> RegisterRequest:
    return RegisterRequest(
        name=name,
        hardware="test rack",
        agent_version="1",
        origin=Origin.SIMULATED,
        gpus=[
            GpuDescription(
                uuid="GPU-0", model="H100", limit_min_w=200, limit_max_w=700, limit_default_w=700
            )
        ],
        models=["llama"],
        power_min_w=300 * scale,
        power_max_w=2000 * scale,
        curve=[
            CurvePoint(tokens_per_s=0, power_w=300 * scale),
            CurvePoint(tokens_per_s=1000 * scale, power_w=1000 * scale),
            CurvePoint(tokens_per_s=1500 * scale, power_w=2000 * scale),
        ],
    )


def status(at: datetime = T0, power_w: float = 800.0) -> NodeStatus:
    return NodeStatus(
        at=at,
        mode="following",
        envelope_version=1,
        power_envelope_w=1000.0,
        node_power_w=power_w,
        node_power_origin=Origin.MODELLED,
        gpu_power_w=700.0,
        tick_lag_ms=0.1,
        engines=[],
        gpus=[],
    )


def batch(
    start_at: datetime, count: int, *, power_w: float = 1000.0, seq: int = 1
) -> TelemetryBatch:
    """``count`` rows of 5 s at a constant power, 50 output tokens/s."""
    rows = [
        EngineRow(
            engine="e0",
            model="llama",
            start_at=start_at + timedelta(seconds=5 * i),
            end_at=start_at + timedelta(seconds=5 * (i + 1)),
            ticks=10,
            gpu_energy_j=power_w * 4,
            node_energy_j=power_w * 5,
            idle_energy_j=0,
            energy_origin=Origin.SIMULATED,
            node_energy_origin=Origin.SIMULATED,
            power_draw_w=power_w,
            power_draw_max_w=power_w,
            power_limit_w=power_w,
            power_envelope_w=power_w,
            ticks_over_envelope=0,
            max_num_seqs=64,
            requests_running=8,
            requests_waiting=0,
            tokens_in=500,
            tokens_out=250,
            requests_finished=1,
            ttft_misses=0,
            itl_misses=0,
        )
        for i in range(count)
    ]
    return TelemetryBatch(spool_id="s", seq=seq, engine_rows=rows, gpu_rows=[])
