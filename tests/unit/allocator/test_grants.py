from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pals_grid.allocator.grants import GrantBook
from pals_grid.allocator.outlook import GrantRules, SiteBudget

if TYPE_CHECKING:
    from pals_grid.allocator.outlook import Issued

RULES = GrantRules(drift_ratio=0.0, lie_reports=3)
UNTIL_S = 30.0  # of a raise: its lease and the time that a helper may take
BUDGET = SiteBudget(3000.0)


def book(*fallback_w: float, now_s: float = 0.0, epoch: int = 1) -> GrantBook:
    """Nodes 0, 1, ... with their schedules, and no grants of an earlier book to wait for."""
    made = GrantBook(epoch, now_s, RULES)
    made.quiet_until_s = now_s
    for node_id, power_w in enumerate(fallback_w):
        made.join(node_id, power_w, 2000.0)
    return made


def powers(issued: dict[int, Issued]) -> dict[int, float]:
    return {node_id: round(one.grant.power_w, 6) for node_id, one in issued.items()}


def take(made: GrantBook, issued: dict[int, Issued], *node_ids: int) -> None:
    for node_id in node_ids:
        made.acknowledge(node_id, made.epoch, issued[node_id].grant.sequence)


def test_a_raise_waits_until_its_cut_is_acknowledged() -> None:
    made = book(1500.0, 1500.0)
    targets = {0: 1000.0, 1: 2000.0}
    first = made.decide(0.0, BUDGET, targets)
    assert powers(first.issued) == {0: 1000.0}
    assert (first.cuts, first.raises, first.allowed_w) == (1, 0, 3000.0)
    assert made.decide(5.0, BUDGET, targets).issued == {}
    take(made, first.issued, 0)
    second = made.decide(10.0, BUDGET, targets)
    assert powers(second.issued) == {1: 2000.0}
    assert (second.cuts, second.raises, second.allowed_w) == (0, 1, 2500.0)


def test_a_raise_lets_go_before_the_cut_may_be_taken_back() -> None:
    made = book(1500.0, 1500.0)
    targets = {0: 1000.0, 1: 2000.0}
    cut = made.decide(0.0, BUDGET, targets)
    take(made, cut.issued, 0)
    assert cut.issued[0].back_s == 55.0
    last_s = 0.0
    for now_s in range(5, 200, 5):
        # Node 0 is never heard of again; node 1 takes all that it is sent.
        raised = made.decide(float(now_s), BUDGET, {1: 2000.0}).issued
        if 1 in raised and raised[1].grant.power_w > 1500.0:
            last_s = now_s
            assert raised[1].until_s <= 55.0
        take(made, raised, *raised)
        assert made.allowed_w(0, now_s) + 0.0 <= 1500.0
    assert last_s == 25.0
    assert powers(made.decide(200.0, BUDGET, {0: 1500.0, 1: 1500.0}).issued) == {}


def test_unacknowledged_grants_count_until_their_leases_have_run_out() -> None:
    made = book(1000.0, 1000.0)
    raised = made.decide(0.0, BUDGET, {0: 1900.0})
    assert powers(raised.issued) == {0: 1900.0}
    # Whether node 0 has it or not: only what is left of the budget goes to node 1.
    assert powers(made.decide(1.0, BUDGET, {1: 1900.0}).issued) == {1: 1100.0}
    lowered = made.decide(2.0, BUDGET, {0: 500.0})
    assert made.decide(11.0, BUDGET, {0: 500.0, 1: 1900.0}).issued.keys() <= {1}
    assert made.allowed_w(0, 29.9) == 1900.0
    assert made.allowed_w(0, UNTIL_S) == 1000.0  # its schedule: the cut may be lost
    take(made, lowered.issued, 0)
    assert made.decide(56.9, BUDGET, {}).allowed_w == 1500.0  # 500 and the other's schedule
    assert made.decide(57.0, BUDGET, {}).allowed_w == 2000.0


def test_what_fits_in_part_is_granted_in_part() -> None:
    made = book(500.0, 500.0, 500.0)
    found = made.decide(0.0, SiteBudget(2000.0), {0: 1000.0, 1: 1000.0, 2: 500.0})
    assert powers(found.issued) == {0: 750.0, 1: 750.0}


def test_small_moves_are_not_sent_and_raises_keep_their_pace() -> None:
    made = book(1000.0, 1000.0)
    assert made.decide(0.0, BUDGET, {0: 1020.0, 1: 981.0}).issued == {}
    first = made.decide(1.0, BUDGET, {0: 1100.0})
    take(made, first.issued, 0)
    assert made.decide(6.0, BUDGET, {0: 1300.0}).issued == {}
    assert powers(made.decide(11.0, BUDGET, {0: 1300.0}).issued) == {0: 1300.0}


def test_small_cuts_are_sent_where_the_budget_needs_them() -> None:
    made = book(1500.0, 1500.0)
    found = made.decide(0.0, SiteBudget(2990.0), {0: 1495.0, 1: 1495.0})
    assert powers(found.issued) == {0: 1495.0, 1: 1495.0}


def test_a_new_book_makes_no_grant_while_those_before_it_may_hold() -> None:
    made = GrantBook(2, 100.0, RULES)
    made.join(0, 1500.0, 2000.0)
    assert made.quiet_until_s == 170.0
    assert made.decide(169.9, BUDGET, {0: 500.0}).issued == {}
    made.acknowledge(0, 1, 99)  # of the book before
    assert made.allowed_w(0, 169.9) == 1500.0
    assert powers(made.decide(170.0, BUDGET, {0: 500.0}).issued) == {0: 500.0}


def test_a_node_that_forgot_its_cut_counts_with_its_schedule_again() -> None:
    made = book(1500.0, 1500.0)
    cut = made.decide(0.0, BUDGET, {0: 700.0})
    take(made, cut.issued, 0)
    assert made.allowed_w(0, 1.0) == 700.0
    made.acknowledge(0, 0, 0)
    assert made.allowed_w(0, 1.0) == 1500.0
    take(made, cut.issued, 0)  # an older status, overtaken
    assert made.allowed_w(0, 1.0) == 1500.0


def test_acknowledgements_out_of_order_or_never_sent_change_nothing() -> None:
    made = book(1500.0)
    first = made.decide(0.0, BUDGET, {0: 700.0})
    second = made.decide(5.0, BUDGET, {0: 600.0})
    take(made, second.issued, 0)
    assert made.allowed_w(0, 6.0) == 600.0
    take(made, first.issued, 0)
    made.acknowledge(0, 1, 12345)
    assert made.allowed_w(0, 6.0) == 600.0


def test_a_lease_that_ends_puts_an_older_acknowledged_cut_in_doubt() -> None:
    made = book(1500.0)
    cut = made.decide(0.0, BUDGET, {0: 700.0})
    take(made, cut.issued, 0)
    made.decide(10.0, BUDGET, {0: 1800.0})  # not acknowledged, ends at 30 + 10 s
    assert made.allowed_w(0, 11.0) == 1800.0
    assert made.allowed_w(0, 41.0) == 1500.0


def test_a_liar_is_counted_with_its_draw_and_the_others_give_way() -> None:
    made = book(1500.0, 1500.0)
    for at_s in (0.0, 1.0):
        made.observe_draw(0, 1900.0, at_s)
    assert made.liars == []
    made.observe_draw(0, 1950.0, 2.0)
    assert made.liars == [0]
    assert made.allowed_w(0, 2.0) == 1950.0
    found = made.decide(2.0, BUDGET, {1: 1050.0})
    assert powers(found.issued) == {1: 1050.0}
    assert found.excess_w == pytest.approx(450.0)
    for at_s in (3.0, 4.0):
        made.observe_draw(0, 1500.0, at_s)
    assert made.liars == [0]
    made.observe_draw(0, 1500.0, 5.0)
    assert made.liars == []


def test_a_step_down_says_what_cannot_be_had_back_and_by_when() -> None:
    made = book(1000.0, 1000.0)
    raised = made.decide(0.0, BUDGET, {0: 1500.0, 1: 1500.0})
    take(made, raised.issued, 0, 1)
    # The nodes' schedules fit into the new budget: the raises' leases bring it back.
    step = made.decide(5.0, SiteBudget(2000.0), {0: 1000.0, 1: 1000.0})
    assert step.excess_w == pytest.approx(1000.0)
    assert step.excess_until_s == UNTIL_S
    assert powers(step.issued) == {0: 1000.0, 1: 1000.0}
    # Below the schedules leases alone do not help.
    deeper = made.decide(6.0, SiteBudget(1500.0), {0: 750.0, 1: 750.0})
    assert deeper.excess_w == pytest.approx(1500.0)
    assert deeper.excess_until_s is None
    take(made, deeper.issued, 0, 1)
    assert made.decide(7.0, SiteBudget(1500.0), {0: 750.0, 1: 750.0}).excess_w == 0.0


def test_grants_are_prolonged_in_time_and_handed_out_with_what_is_left() -> None:
    made = book(1000.0)
    first = made.decide(0.0, BUDGET, {0: 1500.0}).issued[0]
    take(made, {0: first}, 0)
    held = made.grant_for(0, 8.0)
    assert held is not None
    assert (held.lease_s, held.power_w) == (12.0, 1500.0)
    assert made.decide(5.0, BUDGET, {0: 1500.0}).issued == {}
    again = made.decide(10.0, BUDGET, {0: 1500.0}).issued[0]
    assert again.grant.sequence > first.grant.sequence
    assert again.until_s == 40.0
    assert made.grant_for(0, 30.0) is None


def test_nodes_come_and_go() -> None:
    made = book(1000.0, 1000.0)
    made.leave(0)
    assert (0 in made, made.node_ids) == (False, [1])
    made.join(5, 1500.0, 2000.0)
    assert powers(made.decide(0.0, BUDGET, {1: 1500.0, 5: 1500.0}).issued) == {1: 1500.0}
    assert GrantBook(1, 0.0).decide(500.0, BUDGET, {}).issued == {}
