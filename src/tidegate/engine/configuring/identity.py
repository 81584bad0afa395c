"""Which platform account a connection links to, as far as its settings tell (SPEC 2.12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HINTS = ("shop", "account")
"""Settings that tell the account where those that the connector names do not."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The settings that tell one platform account from another, each with its default, None for none."""

    settings: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def named(cls, declared: Mapping[str, str | None], given: Mapping[str, object]) -> Identity:
        """Return what a connector has ``declared``, or else, if that tells nothing, the hint that is ``given``, if any."""
        hints = [name for name in HINTS if isinstance(given.get(name), str) and given[name]]
        made = cls(declared)
        return made if made.told_by(given) else cls(dict.fromkeys(hints[:1]))

    def told_by(self, given: Mapping[str, object]) -> Mapping[str, str]:
        """Return what the settings that are ``given`` tell, by name; empty if nothing."""
        values = {name: given.get(name, default) for name, default in self.settings.items()}
        return {name: str(value).rstrip("/") for name, value in values.items() if value not in (None, "")}

    def account(self, given: Mapping[str, object]) -> str:
        """Return a name for the account, "" if nothing tells it: the value that does, or each with its setting's name.

        Of several settings those at their default are left out.
        """
        told = self.told_by(given)
        apart = {name: value for name, value in told.items() if value != self.settings[name]} or told
        if len(apart) == 1:
            return next(iter(apart.values()))
        return " ".join(f"{name}={value}" for name, value in apart.items())
