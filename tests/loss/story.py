"""A story: everything that decides how one proof goes; the same story always goes the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

from tests.loss.dialects import DIALECTS

BEGINNINGS = (
    datetime(2026, 7, 13, 16, 0, 0, tzinfo=UTC),
    datetime(2026, 10, 24, 22, 30, 0, tzinfo=UTC),  # London's clocks go back at 01:00
    datetime(2026, 11, 1, 2, 30, 0, tzinfo=UTC),  # Havana's at 05:00, New York's at 06:00
    datetime(2027, 3, 13, 22, 0, 0, tzinfo=UTC),  # New York's go forward at 07:00, Havana's at 05:00
    datetime(2027, 3, 27, 21, 0, 0, tzinfo=UTC),  # London's go forward at 01:00
)
SCHEDULES: Mapping[str, Mapping[str, object]] = {
    "every minute": {"every": "1m"},
    "every 7 minutes": {"every": "7m", "settle": "45s"},
    "every 60 minutes": {"every": "60m", "spread": "10m"},
    "daily in London": {"daily": True, "time_zone": "Europe/London", "settle": "5m"},
    "daily at one in London": {"daily": True, "sync_hour": 1, "time_zone": "Europe/London"},
    "weekly in Auckland": {"weekly": True, "sync_hour": 7, "time_zone": "Pacific/Auckland", "spread": "1h"},
    "cron in New York": {"cron": "*/20 0-3 * * *", "time_zone": "America/New_York"},
    "cron in Havana": {"cron": "30 0 * * *", "time_zone": "America/Havana"},
}


@dataclass(frozen=True)
class Story:
    """``faults``, ``changes``: chances per request. ``slowest``: seconds a request may take. ``skew``: the source's clock
    minus ours, in seconds. ``paged``: each page is a batch of its own; else a run is one batch, however large.
    ``webhook``: delivered to a receiver, not into a table; ``silence``: the chance per message that it fails.
    """

    seed: int
    dialect: str
    schedule: str = "every 7 minutes"
    begins: int = 0
    faults: float = 0.0
    changes: float = 0.0
    slowest: float = 2.0
    skew: int = 0
    page_size: int = 3
    paged: bool = True
    poison: bool = False
    remote: bool = False
    circle: bool = False
    ticks: int = 5
    webhook: bool = False
    silence: float = 0.0

    @property
    def beginning(self) -> datetime:
        """When the configuration is received."""
        return BEGINNINGS[self.begins]

    def rule(self) -> dict[str, object]:
        """The schedule as a person writes it; it starts before the configuration is received."""
        rule = dict(SCHEDULES[self.schedule])
        if "every" in rule:
            rule["start_at"] = (self.beginning - timedelta(hours=5)).isoformat()
        else:
            rule["start_date"] = (self.beginning - timedelta(days=2)).date().isoformat()
        return rule


def drawn(seed: int) -> Story:
    """The story that a number stands for; `python -m tests.loss.prove_loss --story N` plays it again."""
    random = Random(seed)
    return Story(
        seed=seed,
        dialect=random.choice(DIALECTS).name,
        schedule=random.choice(list(SCHEDULES)),
        begins=random.randrange(len(BEGINNINGS)),
        faults=random.choice((0.0, 0.05, 0.2, 0.4)),
        changes=random.choice((0.0, 0.15, 0.35)),
        slowest=random.choice((0.0, 2.0, 40.0, 400.0)),
        skew=random.choice((0, -1, -40, 3, 200)),
        page_size=random.choice((2, 3, 5)),
        paged=random.random() < 0.8,
        poison=random.random() < 0.5,
        remote=random.random() < 0.3,
        ticks=random.choice((3, 5, 8)),
        webhook=random.random() < 0.25,
        silence=random.choice((0.0, 0.2, 0.5)),
    )
