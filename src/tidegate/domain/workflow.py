"""Workflows: a trigger and ordered blocks (SPEC 6). A plain sync is the workflow *trigger, fetch, deliver*."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.domain.errors import InvalidInput
from tidegate.domain.run import Trigger


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """One step of a workflow: which block, with which settings."""

    kind: str
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Workflow:
    """A trigger and ordered blocks. The first block fetches, the last one delivers, others stand between.

    Raises InvalidInput if it does not begin with `fetch` and end with `deliver`.
    """

    name: str
    blocks: tuple[BlockSpec, ...]
    triggers: frozenset[Trigger] = frozenset({Trigger.SCHEDULE, Trigger.MANUAL})

    def __post_init__(self) -> None:
        kinds = [block.kind for block in self.blocks]
        if len(kinds) < 2 or kinds[0] != "fetch" or kinds[-1] != "deliver":
            raise InvalidInput(
                f"workflows.{self.name}.blocks",
                kinds,
                "does not begin with fetch and end with deliver",
                "Put a fetch block first and a deliver block last.",
            )

    @property
    def between(self) -> tuple[BlockSpec, ...]:
        """Return the blocks between fetch and deliver, in order."""
        return self.blocks[1:-1]


PLAIN_SYNC = Workflow("sync", (BlockSpec("fetch"), BlockSpec("deliver")))
"""What an installation runs when it names no workflow of its own: each stream in a run of its own."""
