"""Every error Tidegate raises, split by whose fault it is.

    TidegateError
    ├── InvalidInput            what the person gave us           exit code 2, HTTP 4xx
    ├── SourceError             the third party
    │   ├── RateLimited         retryable, says when
    │   │   └── AccountHeld     another run of the account was told so; retryable, says when
    │   ├── SourceUnavailable   retryable
    │   ├── SourceClockBehind   retryable, says when
    │   ├── Unauthorised        marks the connection
    │   └── ContractBroken      the reply is not what its interface promises
    ├── DestinationError
    │   ├── DestinationUnavailable   retryable
    │   └── DestinationRejected
    └── RunError                ourselves
        ├── LeaseLost           another worker has taken the run over
        └── InternalError       a bug, or our own database; nothing was committed

Whether something may be retried is a property of its type (ARCHITECTURE, "Errors").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

MOST_SHOWN: Final = 500
"""Characters of a value that an error shows: a document of a few lines may hold one of millions."""


class TidegateError(Exception):
    """Base of all errors: a stable ``code``, the ``values`` involved and what to do next.

    ``str(error)`` is one sentence for people; ``as_json()`` is the same for machines.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, remedy: str = "", **values: object) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.values: Mapping[str, object] = values

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()

    def as_json(self) -> dict[str, object]:
        """Return the error as JSON-ready values; its secrets must have been masked (`tidegate.domain.masking`)."""
        return {"code": self.code, "message": self.message, "remedy": self.remedy, **self.values}


class InvalidInput(TidegateError):
    """What a person or a file gave us is not acceptable; nothing was changed.

    Always names the ``field`` (dotted path), the offending ``value``, of a long one the beginning, and the remedy.
    """

    code = "invalid_input"

    def __init__(self, field: str, value: object, problem: str, remedy: str) -> None:
        shown = repr(value)
        if len(shown) > MOST_SHOWN:
            shown = value = f"{shown[:MOST_SHOWN]}…"
        nothing = value is None and problem.startswith("is missing")
        super().__init__(
            f"{field} {problem}." if nothing else f"{field}: {shown} {problem}.",
            remedy=remedy,
            field=field,
            value=value,
        )
        self.field = field
        self.value = value
        self.problem = problem

    def under(self, path: str) -> InvalidInput:
        """Return the same error about the field as seen from further up: ``path`` in front of it."""
        return InvalidInput(f"{path}.{self.field}", self.value, self.problem, self.remedy)


class SourceError(TidegateError):
    """The third party's fault, or the network's between us and it."""

    code = "source_error"


class RateLimited(SourceError):
    """The source asked for fewer requests (429, or its own throttle).

    ``retry_after_seconds`` is what the source asked for, or None if it did not say.
    """

    code = "rate_limited"
    retryable = True

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.retry_after_seconds = retry_after_seconds


class AccountHeld(RateLimited):
    """Nothing was asked: the platform account has asked another run for a pause, and all of its runs wait (SPEC 3)."""

    code = "account_held"


class SourceUnavailable(SourceError):
    """Network failure, time-out, 5xx, or a body that broke off: try again.

    ``retry_after_seconds`` is what the source asked for (503 may), or None.
    """

    code = "source_unavailable"
    retryable = True

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.retry_after_seconds = retry_after_seconds


class SourceClockBehind(SourceError):
    """The source's own clock has not passed the period's end yet (SPEC 3); wait ``wait_seconds``."""

    code = "source_clock_behind"
    retryable = True

    def __init__(self, message: str, *, wait_seconds: float) -> None:
        super().__init__(message, wait_seconds=wait_seconds)
        self.wait_seconds = wait_seconds


class Unauthorised(SourceError):
    """The source refuses the connection's credentials; a person must renew them."""

    code = "unauthorised"


class ContractBroken(SourceError):
    """The source's reply is not what its interface promises; the run stops and shows it.

    ``values["response"]`` holds the offending reply's beginning, secrets masked.
    """

    code = "contract_broken"


class DestinationError(TidegateError):
    """The destination's fault."""

    code = "destination_error"


class DestinationUnavailable(DestinationError):
    """The destination cannot be reached now; try again."""

    code = "destination_unavailable"
    retryable = True


class DestinationRejected(DestinationError):
    """The destination refuses what it was given, and would again."""

    code = "destination_rejected"


class RunError(TidegateError):
    """Our own fault, or our own protection at work."""

    code = "run_error"


class LeaseLost(RunError):
    """Another worker holds a newer epoch of this run: commit nothing, walk away (SPEC 5, fencing)."""

    code = "lease_lost"


class InternalError(RunError):
    """A bug in Tidegate or trouble with its own database; nothing was committed. Tried again: it may pass."""

    code = "internal_error"
    retryable = True
