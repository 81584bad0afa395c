"""What really happened at the hostile source: every version of every record, when it was made and when it showed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

from tests.loss.dialects import Dialect

FIRST_BEYOND_64_BITS = 2**63
HOSTILE_NOTES = ("None", "\\N", "tab\tline\nend", "\x00", "a\x00b", "\\u0000", "żółć 👋", '"quoted"', "")
DEEP = "[" * 2000 + "]" * 2000
HOSTILE_AMOUNTS = (
    0, -1, FIRST_BEYOND_64_BITS - 1, FIRST_BEYOND_64_BITS, -FIRST_BEYOND_64_BITS - 1, 10**40, "12.50", True, None,
)  # fmt: skip


@dataclass(frozen=True)
class Version:
    """One version of a record. ``changed_at``: by the source's clock. ``shows_at``: by ours, not before the one before.

    ``flaw``: what makes it poison, "" if it is sound.
    """

    id: int
    revision: int
    created_at: datetime
    changed_at: datetime
    shows_at: datetime
    flaw: str = ""

    @property
    def name(self) -> tuple[int, int]:
        """What the version is called in every check."""
        return self.id, self.revision

    def text(self, dialect: Dialect) -> str:
        """The record as the source writes it."""
        if self.flaw == "not_object":
            return json.dumps(["poison", self.id, self.revision])
        record = self.fields(dialect)
        cursor = dialect.cursor or "updated_at"
        match self.flaw:
            case "no_key":
                del record["id"]
            case "nul_key":
                record["id"] = f"nul\x00{self.id}"
            case "null_cursor":
                record[cursor] = None
            case "bad_cursor":
                record[cursor] = "yesterday"
            case "nan_cursor":
                record[cursor] = float("nan")
            case "half_cursor":
                record[cursor] = "\ud800"
            case "raw_cursor":
                return json.dumps({**record, cursor: "RAW"}).replace("RAW", "\x01")
            case "deep_cursor":
                return json.dumps({**record, cursor: "DEEP"}).replace('"DEEP"', DEEP)
        return json.dumps(record)

    def fields(self, dialect: Dialect) -> dict[str, object]:
        """The record's fields, sound."""
        number = self.id * 31 + self.revision * 7
        record: dict[str, object] = {
            "id": key(self.id, dialect),
            "ref": self.id,
            "revision": self.revision,
            "created_at": dialect.shown(self.created_at),
            "updated_at": dialect.shown(self.changed_at),
            "amount": number * 100,
            "note": f"revision {self.revision} of {self.id}",
            "lines": [{"sku": f"s{number % 5}", "quantity": number % 3}],
        }
        if number % 4 == 0:
            record["note"] = HOSTILE_NOTES[number // 4 % len(HOSTILE_NOTES)]
        if number % 5 == 0:
            record["amount"] = HOSTILE_AMOUNTS[number // 5 % len(HOSTILE_AMOUNTS)]
        if number % 6 == 0:
            record[f"extra_{number % 4}"] = number
        return record


def key(number: int, dialect: Dialect) -> int | str:
    """A record's key as the source writes it."""
    return f"k{number:05}" if dialect.text_keys else number


@dataclass
class History:
    """The source's records. ``skew``: its clock minus ours. ``longest_lag``: how late a change may show."""

    dialect: Dialect
    skew: timedelta
    longest_lag: timedelta
    poison: bool
    random: Random
    versions: dict[int, list[Version]] = field(default_factory=dict)
    deleted_at: dict[int, datetime] = field(default_factory=dict)

    def source_time(self, now: datetime) -> datetime:
        """What the source's clock says when ours says ``now``."""
        return now + self.skew

    def latest(self, now: datetime) -> Iterator[Version]:
        """What the source shows at ``now``: of each record the newest version that shows by then."""
        for number, versions in self.versions.items():
            if number in self.deleted_at and self.deleted_at[number] <= now:
                continue
            shown = [version for version in versions if version.shows_at <= now]
            if shown:
                yield shown[-1]

    def create(self, now: datetime, lag: timedelta = timedelta(0), flaw: str = "") -> Version:
        """Create a record at ``now`` that shows ``lag`` later."""
        number = len(self.versions) + 1
        at = self.source_time(now)
        version = Version(number, 1, at, at, now + lag, flaw)
        self.versions[number] = [version]
        return version

    def edit(self, number: int, now: datetime, lag: timedelta = timedelta(0), flaw: str = "") -> Version:
        """Edit a record at ``now``; the edit shows ``lag`` later, but not before the version before."""
        before = self.versions[number][-1]
        at = max(self.source_time(now), before.changed_at)
        version = Version(
            number, before.revision + 1, before.created_at, at, max(now + lag, before.shows_at), flaw
        )  # fmt: skip
        self.versions[number].append(version)
        return version

    def delete(self, number: int, now: datetime) -> None:
        """Remove a record from the listing; finding that out is no part of the promise (HOLE ii)."""
        self.deleted_at.setdefault(number, now)

    def happen(self, now: datetime) -> None:
        """Let something happen at ``now``: mostly an insert or an edit, sometimes two in one second, late, or a delete."""
        random, alive = self.random, [n for n in self.versions if n not in self.deleted_at]
        lag = self.longest_lag * random.random() if random.random() < 0.3 else timedelta(0)
        flaw = random.choice(self.flaws) if self.flaws and random.random() < 0.06 else ""
        kind = random.random()
        if not alive or not self.dialect.changes or kind < 0.4:
            self.create(now, lag, flaw)
        elif kind < 0.95:
            number = alive[-1] if kind < 0.5 else alive[0] if kind < 0.6 else random.choice(alive)
            self.edit(number, now, lag, flaw)
            if random.random() < 0.3:
                self._edit_again_in_the_same_second(number, now)
        elif len(alive) > 3:
            self.delete(random.choice(alive), now)

    def _edit_again_in_the_same_second(self, number: int, now: datetime) -> None:
        before = self.versions[number][-1]
        left = timedelta(seconds=1) - timedelta(microseconds=before.changed_at.microsecond)
        at = before.changed_at + left * 0.5
        ours = at - self.skew
        shows_at = max(before.shows_at, ours, min(before.shows_at + self.longest_lag / 4, ours + self.longest_lag))
        self.versions[number].append(Version(number, before.revision + 1, before.created_at, at, shows_at))

    @property
    def flaws(self) -> tuple[str, ...]:
        """The flaws that a record of this dialect may have and still be listed."""
        if not self.poison:
            return ()
        kinds: list[str] = []
        if self.dialect.cursor:
            kinds += ["null_cursor", "bad_cursor", "nan_cursor", "half_cursor", "raw_cursor", "deep_cursor"]
        if self.dialect.has_token or self.dialect.pager == "none":
            kinds += ["no_key", "not_object"]
            if self.dialect.text_keys:
                kinds.append("nul_key")
        return tuple(kinds)

    def live(self, since: datetime, until: datetime, events: int, dates: Sequence[datetime] = ()) -> None:
        """Let ``events`` things happen between two instants of ours, some exactly at ``dates`` of the source's clock."""
        span = until - since
        times = [since + span * self.random.random() for _ in range(events)]
        times += [date - self.skew for date in dates if since <= date - self.skew <= until]
        for at in sorted(times):
            self.happen(at)
