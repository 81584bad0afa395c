"""Issue 3, figure 2: an outage at every-minute cadence leaves no queue behind, and no gap."""

from __future__ import annotations

from datetime import timedelta

from tests.engine.world import in_world
from tests.model.outage import LIMIT, MINUTE, TENANTS, play


def test_three_days_at_every_minute_coalesce_into_one_run_each(database_url: str) -> None:
    """SPEC 2.8, HOLE ee: 4,320 due dates of each stream are one period."""
    figures = in_world(database_url, lambda world: play(world, "coalesce", timedelta(days=3)))
    assert figures.runs == TENANTS
    assert figures.most_rows == 1
    assert figures.most_active <= LIMIT
    assert figures.periods == [timedelta(days=3)] * TENANTS
    assert figures.uncovered == 0


def test_under_each_an_outage_is_caught_up_in_order_within_the_accounts_limits(database_url: str) -> None:
    """SPEC 2.8, 3: never more rows than are planned ahead; `python -m tests.model.prove_outage` plays the three days."""
    figures = in_world(database_url, lambda world: play(world, "each", timedelta(minutes=20)), plan_ahead=7)
    assert figures.runs == 20 * TENANTS
    assert figures.most_rows <= 7
    assert figures.most_active == LIMIT
    assert figures.periods == [MINUTE] * 20 * TENANTS
    assert figures.in_order
    assert figures.open_ended == TENANTS
    assert figures.uncovered == 0
