"""When a failed attempt is tried again: exponential backoff with full jitter (SPEC 5, "Failures")."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tidegate.domain.errors import RateLimited, SourceClockBehind, SourceUnavailable, TidegateError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """``attempts`` in a row without progress before a run fails; waits grow from ``base`` by doubling up to ``cap``."""

    attempts: int = 10
    base: timedelta = timedelta(seconds=2)
    cap: timedelta = timedelta(minutes=15)

    def wait(self, attempt: int, chance: float) -> timedelta:
        """Return the wait after failed attempt number ``attempt`` (from 1), uniform in (0, ceiling].

        ``chance`` is a random number in [0, 1). The ceiling is ``min(cap, base * 2 ** (attempt - 1))``.
        """
        ceiling = min(self.cap, self.base * float(2 ** min(attempt - 1, 30)))
        return ceiling * (1 - chance)

    def next_wait(self, error: TidegateError, attempt: int, chance: float) -> timedelta | None:
        """Return how long to wait before the next attempt, or None if there is none.

        What the source asked for (Retry-After) is honoured as a minimum. Waiting for the source's clock
        (SPEC 3) takes exactly as long as the clock needs and is never given up.
        """
        if isinstance(error, SourceClockBehind):
            return timedelta(seconds=error.wait_seconds)
        if not error.retryable or attempt >= self.attempts:
            return None
        wait = self.wait(attempt, chance)
        if isinstance(error, RateLimited | SourceUnavailable) and error.retry_after_seconds is not None:
            wait = max(wait, timedelta(seconds=error.retry_after_seconds))
        return wait
