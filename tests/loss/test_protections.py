"""The teeth of the proof: each protection taken away is noticed, in a story that breaks no promise with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.loss.harness import play
from tests.loss.protections import PROTECTIONS, Protection

SEEDS = 6


@pytest.mark.parametrize("protection", PROTECTIONS, ids=lambda protection: protection.name)
def test_a_protection_taken_away_is_noticed(stage_url: str, protection: Protection) -> None:
    """With it the story breaks no promise, without it the same story does; the first of a few seeds that needs it tells."""
    noticed: set[str] = set()
    for seed in range(protection.story.seed, protection.story.seed + SEEDS):
        story = replace(protection.story, seed=seed)
        with pytest.MonkeyPatch.context() as patch:
            protection.beforehand(patch)
            protection.take_away(patch)
            without = play(stage_url, story).kinds
        noticed |= without
        if without & protection.noticed_as:
            with pytest.MonkeyPatch.context() as patch:
                protection.beforehand(patch)
                assert play(stage_url, story).violations == []
            return
    pytest.fail(f"taken away, nobody noticed: {protection.name}; only {noticed or 'nothing'}")
