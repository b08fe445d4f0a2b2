from __future__ import annotations

from pals_grid.core.grant import Grant, GrantHolder

SCHEDULED_W = 1000.0


def grant(sequence: int, power_w: float, lease_s: float = 20.0, epoch: int = 1) -> Grant:
    return Grant(epoch, sequence, power_w, lease_s)


def test_a_grant_holds_from_when_the_node_asked_and_then_the_schedule_does() -> None:
    holder = GrantHolder()
    assert holder.power_w_at(0.0, SCHEDULED_W) == SCHEDULED_W
    assert holder.take(grant(1, 1500.0), asked_s=100.0, now_s=104.0)
    found = [holder.power_w_at(at_s, SCHEDULED_W) for at_s in (104.0, 119.9, 120.0)]
    assert found == [1500.0, 1500.0, SCHEDULED_W]


def test_an_answer_that_took_too_long_is_not_taken() -> None:
    holder = GrantHolder()
    assert not holder.take(grant(1, 500.0, 90.0), asked_s=0.0, now_s=5.1)
    assert holder.grant is None
    assert holder.power_w_at(6.0, SCHEDULED_W) == SCHEDULED_W


def test_older_grants_are_refused_and_the_same_one_prolongs_itself() -> None:
    holder = GrantHolder()
    holder.take(grant(7, 800.0), 0.0, 0.1)
    assert not holder.take(grant(6, 1500.0, 60.0), 1.0, 1.1)
    assert holder.take(grant(7, 800.0, 15.0), 10.0, 10.1)
    assert holder.take(grant(7, 800.0, 20.0), 0.0, 0.2)
    assert holder.end_s == 25.0
    assert holder.power_w_at(24.9, SCHEDULED_W) == 800.0
    assert not holder.take(grant(9, 900.0, epoch=0), 11.0, 11.1)
    assert holder.take(grant(1, 900.0, epoch=2), 12.0, 12.1)


def test_after_a_restart_the_kept_grant_only_lowers_for_a_whole_lease() -> None:
    cut = GrantHolder(grant(3, 700.0, 90.0), now_s=50.0)
    assert [cut.power_w_at(at_s, SCHEDULED_W) for at_s in (50.0, 139.9, 140.0)] == [
        700.0,
        700.0,
        SCHEDULED_W,
    ]
    raised = GrantHolder(grant(3, 1700.0), now_s=50.0)
    assert raised.power_w_at(51.0, SCHEDULED_W) == SCHEDULED_W
    # The very grant again says nothing about how old the one before the restart was.
    assert raised.take(grant(3, 1700.0), 60.0, 60.1)
    assert raised.power_w_at(61.0, SCHEDULED_W) == SCHEDULED_W
    assert raised.take(grant(4, 1600.0), 61.0, 61.1)
    assert raised.power_w_at(62.0, SCHEDULED_W) == 1600.0
