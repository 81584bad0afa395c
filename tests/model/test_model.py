"""The chain and the identities of SPEC 2.12 hold after every step of random stories (issue 3, figure 1)."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import ChainStory

QUICK = settings(
    max_examples=12,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_random_stories_keep_the_chain_and_the_promise(database_url: str) -> None:
    """SPEC 2.7 to 2.12, 4, 5: plan, run, fail, edit, pause, waive, backfill, run by hand, jump, crash, compact."""

    class Story(ChainStory):
        dsn = database_url

    run_state_machine_as_test(Story, settings=QUICK)
    happened = {what.split(",")[0] for what in Story.done}
    wanted = {"edited", "worked well", "worked badly", "crashed", "waived", "backfill asked for"}
    assert len(wanted & happened) >= 5, f"the stories are too tame: {happened}"
