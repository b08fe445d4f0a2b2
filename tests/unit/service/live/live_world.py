"""A service whose database's clock is set by the test, and nodes that obey as real ones do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from pals_grid.core.fleet import Origin
from pals_grid.core.grant import Grant, GrantHolder
from pals_grid.core.site import LiveGrants
from pals_grid.service import envelopes, nodes
from pals_grid.service.live.allocating import LiveAllocator
from pals_grid.service.live.views import load_live
from pals_grid.wire.messages import EngineStatus, NodeStatus, decode, encode
from tests.unit.service.world import T0, World

if TYPE_CHECKING:
    from pals_grid.core.fleet import Node
    from pals_grid.core.live import RoundRecord
    from pals_grid.store.engine import Database
    from pals_grid.wire.messages import EnvelopeSchedule, StatusReply

# A function of our own stands before the server's: what asks for its clock gets the test's.
_CLOCK = """
    CREATE TABLE test_clock (at timestamptz NOT NULL);
    INSERT INTO test_clock VALUES ('2026-03-02T12:00:00Z');
    CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
        AS 'SELECT at FROM public.test_clock';
"""
QUIET_S = 75.0


class LiveWorld(World):
    """A site ``oslo`` of 4 kW with live grants; seconds pass when the test says so."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        with database.begin() as connection:
            connection.execute(text(_CLOCK))
            name = connection.execute(text("SELECT current_database()")).scalar_one()
            connection.execute(text(f"ALTER DATABASE {name} SET search_path = public, pg_catalog"))
        database.dispose()
        self.machines: list[Machine] = []

    def make_live_site(
        self, slug: str = "oslo", mode: LiveGrants = LiveGrants.ON, **changes: float
    ) -> None:
        values = {"maximum_w": 4000.0, "demand_tokens_per_s": 4000.0, **changes}
        self.make_site(slug, live_grants=mode.value, **values)

    def add(self, name: str, site: str = "oslo", *, takes_grants: bool = True) -> Machine:
        reply = self.register(name, site)
        node = nodes.authenticate_node(self.context, reply.node_token)
        self.machines.append(Machine(self, node, reply.node_token, takes_grants=takes_grants))
        return self.machines[-1]

    def allocator(self, holder: str = "a") -> LiveAllocator:
        return LiveAllocator(self.context, holder)

    def pass_s(self, seconds: float, *, database_s: float | None = None) -> None:
        """Let time pass; the database's clock may go otherwise than all others."""
        self.clock.advance(seconds)
        step_s = seconds if database_s is None else database_s
        with self.database.begin() as connection:
            connection.execute(
                text("UPDATE test_clock SET at = at + make_interval(secs => :s)"), {"s": step_s}
            )

    def rounds(self, allocator: LiveAllocator, seconds: float) -> None:
        """Every 5 s all machines speak and the allocator makes a round."""
        for _ in range(int(seconds / 5)):
            for machine in self.machines:
                machine.speak()
            allocator.round()
            self.pass_s(5)

    @property
    def commanded_w(self) -> float:
        return sum(machine.goes_by_w for machine in self.machines)


class Machine:
    """A node that holds to its newest schedule and grant, and draws what its work needs."""

    def __init__(self, world: LiveWorld, node: Node, token: str, *, takes_grants: bool) -> None:
        self.world, self.node, self.token = world, node, token
        self.takes_grants = takes_grants
        self.holder = GrantHolder()
        self.wants_w = 300.0
        self.lies_by = 1.0
        self.schedule: EnvelopeSchedule = envelopes.load_schedule(world.context, node.id)

    @property
    def now_s(self) -> float:
        """Its own monotonic clock."""
        return (self.world.clock.now() - T0).total_seconds()

    @property
    def scheduled_w(self) -> float:
        now = self.world.clock.now()
        for item in self.schedule.intervals:
            if item.start_at <= now < item.end_at:
                return item.power_max_w
        return self.schedule.safe_power_w

    @property
    def goes_by_w(self) -> float:
        return self.holder.power_w_at(self.now_s, self.scheduled_w)

    def fetch(self) -> None:
        self.schedule = envelopes.load_schedule(self.world.context, self.node.id)

    def status(self) -> NodeStatus:
        power_w = min(self.wants_w, self.goes_by_w) * self.lies_by
        curve = self.node.capability.curve
        short = self.wants_w > self.goes_by_w
        grant = self.holder.grant
        engine = EngineStatus(
            engine="e0",
            model="llama",
            power_limit_w=self.goes_by_w,
            power_draw_w=power_w,
            max_num_seqs=64,
            requests_running=32,
            requests_waiting=16 if short else 0,
            tokens_out_per_s=curve.tokens_per_s_at(power_w),
            gpu_energy_j_per_token=1.0,
            reason="",
        )
        return NodeStatus(
            at=self.world.clock.now(),
            mode="following",
            envelope_version=self.schedule.version,
            power_envelope_w=self.goes_by_w,
            node_power_w=power_w,
            node_power_origin=Origin.SIMULATED,
            gpu_power_w=power_w,
            tick_lag_ms=0.0,
            engines=[engine],
            gpus=[],
            takes_grants=self.takes_grants,
            grant_epoch=grant.epoch if grant and self.takes_grants else 0,
            grant_sequence=grant.sequence if grant and self.takes_grants else 0,
        )

    def speak(self) -> Grant | None:
        """Say how it is and take what the answer holds."""
        asked_s = self.now_s
        status = decode(encode(self.status()), NodeStatus)
        grant = nodes.record_status(self.world.context, self.node, status)
        if grant is not None:
            self.holder.take(grant, asked_s, self.now_s)
        return grant

    def take(self, reply: StatusReply, asked_s: float) -> None:
        """Take an answer that came by the API."""
        if reply.grant is not None:
            one = reply.grant
            grant = Grant(one.epoch, one.sequence, one.power_w, one.lease_s)
            self.holder.take(grant, asked_s, self.now_s)


def record_of(live: LiveWorld, slug: str = "oslo") -> RoundRecord:
    """The site's last round."""
    last = load_live(live.context, slug).last
    assert last is not None
    return last.record
