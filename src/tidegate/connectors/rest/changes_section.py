"""The `changes:` of a stream: the source says itself what has changed, by a token instead of a time."""

from __future__ import annotations

from tidegate.connectors.rest.declaration import ChangesDeclaration
from tidegate.connectors.rest.pager_section import required_place
from tidegate.connectors.rest.section import Section

GONE = frozenset({410})
DEFAULT_MARK = "deleted"
OF_A_CURSOR = ("cursor", "lookback_seconds", "history_seconds", "lower", "upper")


def read_changes(stream: Section) -> ChangesDeclaration | None:
    """Return how the stream's changes are asked for, None for a stream without a change feed."""
    section = stream.section("changes")
    if section is None:
        return None
    for key in OF_A_CURSOR:
        if key in stream:
            raise stream.refuse(key, "bounds by time what a token bounds already", "Remove it, or `changes:`.")
    removed = section.optional_text("removed")
    made = ChangesDeclaration(
        param=section.text("param"),
        token=required_place(section, "token"),
        expired=section.statuses("expired_statuses") or GONE,
        expired_codes=frozenset(str(code) for code in section.items("expired_codes")),
        removed=tuple(removed.split(".")) if removed else None,
        mark=section.text("mark", DEFAULT_MARK),
    )
    section.finish()
    return made
