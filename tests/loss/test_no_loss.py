"""The loss proof: hostile stories, played by the real engine, connector and destination (SPEC 4, 5).

After each run: whatever *covered to W* promises has been delivered. In the end: destination equals source, every version
delivered was stored once, nothing is lost, the coverage is a chain of due dates, and the quarantine holds the poison.
`python -m tests.loss.prove_loss` plays thousands; here is what fits into a minute.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.loss.dialects import DIALECTS
from tests.loss.harness import play
from tests.loss.story import BEGINNINGS, SCHEDULES, Story

STORIES = st.builds(
    Story,
    seed=st.integers(0, 2**32),
    dialect=st.sampled_from([dialect.name for dialect in DIALECTS]),
    schedule=st.sampled_from(list(SCHEDULES)),
    begins=st.integers(0, len(BEGINNINGS) - 1),
    faults=st.sampled_from((0.0, 0.1, 0.3)),
    changes=st.sampled_from((0.0, 0.3)),
    slowest=st.sampled_from((2.0, 60.0, 400.0)),
    skew=st.sampled_from((0, -1, -40, 3, 200)),
    page_size=st.sampled_from((2, 3, 5)),
    paged=st.booleans(),
    poison=st.booleans(),
    remote=st.booleans(),
    ticks=st.integers(2, 4),
)


@settings(
    max_examples=30,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(story=STORIES)
def test_no_story_loses_anything(stage_url: str, story: Story) -> None:
    """SPEC 4, 5; HOLES a, d, e, g, h, j, k, l, s, gg, hh and the faults of real sources: no promise is broken."""
    outcome = play(stage_url, story)
    assert outcome.violations == []
    assert outcome.runs["succeeded"] > 0


@pytest.mark.parametrize("dialect", [dialect.name for dialect in DIALECTS])
def test_every_dialect_is_read_without_loss_while_it_changes(stage_url: str, dialect: str) -> None:
    """SPEC 4; HOLES e, i, j, gg: records are created, edited twice a second and deleted between the pages."""
    outcome = play(stage_url, Story(11, dialect, "every 60 minutes", begins=1, changes=0.3, poison=True, ticks=3))
    assert outcome.violations == []
    assert outcome.written > 10


RECEIVED = [
    Story(21, "keyset", changes=0.3, slowest=20.0, poison=True, ticks=4, webhook=True, silence=0.5),
    Story(22, "page", "every 60 minutes", faults=0.3, changes=0.3, page_size=2, ticks=4, webhook=True, silence=0.5),
    Story(23, "offset", "daily in London", begins=1, changes=0.3, paged=False, ticks=4, webhook=True, silence=0.2),
    Story(24, "date_exclusive", "every minute", changes=0.3, skew=-40, ticks=5, webhook=True, silence=0.5),
    Story(25, "keyset_newest", faults=0.3, changes=0.3, skew=200, poison=True, ticks=4, webhook=True),
]


@pytest.mark.parametrize("story", RECEIVED, ids=lambda story: story.dialect)
def test_a_receiver_that_keeps_ids_loses_nothing_and_has_nothing_twice(stage_url: str, story: Story) -> None:
    """SPEC 4, 5 "Webhook": every version delivered comes once and in order, whatever the receiver answers, or does not."""
    outcome = play(stage_url, story)
    assert outcome.violations == []
    assert outcome.runs["succeeded"] > 0
    assert outcome.written > 10


def test_a_story_goes_the_same_way_again(stage_url: str) -> None:
    """A seed replays: otherwise a broken story could not be looked into."""
    story = Story(5, "keyset", faults=0.3, changes=0.3, skew=-40, poison=True)
    assert play(stage_url, story) == play(stage_url, story)
