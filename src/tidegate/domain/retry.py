"""When a failed attempt is tried again: exponential backoff with full jitter (SPEC 5, "Failures")."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tidegate.domain.errors import AccountHeld, RateLimited, SourceClockBehind, SourceUnavailable, TidegateError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """``attempts`` in a row without progress before a run fails; waits grow from ``base`` by doubling up to ``cap``.

    With the defaults a source may be away for about six hours before a run fails. ``longest`` bounds what a source may ask
    for, so that a wrong header stops nothing for good.
    """

    attempts: int = 60
    base: timedelta = timedelta(seconds=2)
    cap: timedelta = timedelta(minutes=15)
    longest: timedelta = timedelta(days=1)

    def wait(self, attempt: int, chance: float) -> timedelta:
        """Return the wait after failed attempt number ``attempt`` (from 1), uniform in (0, ceiling].

        ``chance`` is a random number in [0, 1). The ceiling is ``min(cap, base * 2 ** (attempt - 1))``.
        """
        ceiling = min(self.cap, self.base * float(2 ** min(attempt - 1, 30)))
        return ceiling * (1 - chance)

    def next_wait(self, error: TidegateError, attempt: int, chance: float) -> timedelta | None:
        """Return how long to wait before the next attempt, or None if there is none.

        What the source asked for (Retry-After) is honoured as a minimum, up to ``longest``. A source's clock that is
        behind (SPEC 3) is waited for and never given up; it is asked again after ``cap`` at the latest. A pause that the
        account asked of another run is waited for as it is.
        """
        if isinstance(error, AccountHeld):
            return self._bounded(error.retry_after_seconds or 0.0, self.longest)
        if isinstance(error, SourceClockBehind):
            return self._bounded(error.wait_seconds, self.cap)
        if not error.retryable or attempt >= self.attempts:
            return None
        asked = error.retry_after_seconds if isinstance(error, RateLimited | SourceUnavailable) else None
        return self.wait_or_longer(attempt, chance, asked)

    def wait_or_longer(self, attempt: int, chance: float, asked_seconds: float | None) -> timedelta:
        """Return the wait after failed attempt number ``attempt``, or what the other side asked for, if that is longer."""
        wait = self.wait(attempt, chance)
        return wait if asked_seconds is None else max(wait, self._bounded(asked_seconds, self.longest))

    @staticmethod
    def _bounded(seconds: float, most: timedelta) -> timedelta:
        return timedelta(seconds=min(seconds, most.total_seconds()))
