"""The one way to ask for the time: a Clock handed in by the composition root."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits. Everything outside `bootstrap` is given one (ARCHITECTURE, "Layers")."""

    def now(self) -> datetime:
        """Return the present as an aware UTC instant; never goes backwards within a process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once ``seconds`` of this clock's own time have passed."""
        ...
