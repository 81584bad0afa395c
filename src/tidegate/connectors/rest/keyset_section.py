"""The declared keyset pager and request bodies, read and checked against the rest of their stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tidegate.connectors.rest.bodies import named_in
from tidegate.connectors.rest.declaration import INSTANT, PagerDeclaration, PagerKind, StreamDeclaration, Tree
from tidegate.connectors.rest.section import Section, suggest
from tidegate.domain.cursor import CursorFormat

UTC = "Etc/UTC"
INNER = (PagerKind.CURSOR, PagerKind.PAGE)


def read_keyset(section: Section, read_pager: Callable[[Section], PagerDeclaration]) -> PagerDeclaration:
    """Return a keyset pager; the caller finishes ``section``."""
    within = read_pager(section.required_section("within"))
    if within.kind not in INNER:
        problem = f"is of type {within.kind}, which does not page the records of one cursor value"
        remedy = (
            "Use type cursor or page; where there are only offsets, `type: offset` without keyset, ordered by the key."
        )
        raise section.refuse("within", problem, remedy)
    ties = section.section("ties")
    if ties is None:
        return PagerDeclaration(PagerKind.KEYSET, within=within)
    param, body = ties.text("param"), ties.tree("body")
    ties.finish()
    if body is None:
        raise ties.refuse("body", "is missing", "Add the body that lists the records of one cursor value by key.")
    return PagerDeclaration(PagerKind.KEYSET, param=param, within=within, ties=body)


def check_bodies(section: Section, made: StreamDeclaration, settings: Mapping[str, str | None]) -> None:
    """Raise InvalidInput if a keyset lacks what it goes by, or a body leaves out a parameter or names a strange one."""
    pager = made.pager
    if pager.kind is PagerKind.KEYSET:
        _check_keyset(section, made)
    if made.body is None:
        if pager.ties is not None:
            raise section.refuse("pager", "has a body for ties, but the stream has none", "Declare `body:` too.")
        return
    if made.method != "POST":
        raise section.refuse("body", "is for a POST", "Add `method: POST`.")
    lower, upper = made.lower.param if made.lower else "", made.upper.param if made.upper else ""
    within = pager.within.param if pager.within else pager.param
    needed = {*made.params, *made.filters, lower, upper}
    known = {*needed, within} | {f"settings.{name}" for name in settings}
    _check_names(section, "body", made.body, known, needed if pager.ties else {*needed, within})
    if pager.ties is not None:
        _check_names(section, "pager", pager.ties, known | {pager.param}, {*made.params, lower, pager.param})


def _check_keyset(section: Section, made: StreamDeclaration) -> None:
    cursor = made.stream.cursor
    if cursor is None or not cursor.ascending or made.lower is None:
        raise section.refuse(
            "pager",
            "goes by the cursor field, but the stream is not listed in its order from a lower bound on",
            "Declare `cursor:` with `ascending: true`, and `lower:`, or use another pager.",
        )
    wall = {made.lower.format, cursor.format} & {CursorFormat.LOCAL, CursorFormat.DATE} and made.lower.time_zone != UTC
    other = made.lower.grain != cursor.precision or made.lower.value != INSTANT
    if made.pager.ties is not None and (wall or len(made.stream.key) != 1 or other):
        raise section.refuse(
            "pager",
            "lists ties by key, which needs one key field, and a lower bound as fine as the cursor, in UTC and of no other text",
            "Leave out `ties:`, or correct `key:`, `grain_seconds:`, `time_zone:` or `value:`.",
        )


def _check_names(section: Section, key: str, tree: Mapping[str, Tree], known: set[str], needed: set[str]) -> None:
    named = set(named_in(tree))
    for name in sorted(named - known):
        raise section.refuse(
            key, f"names {{{name}}}, which is no parameter of this stream", suggest(name, known - {""})
        )
    for name in sorted(needed - named - {""}):
        raise section.refuse(key, f"has no place for the parameter {name!r}", f"Write {{{name}}} where it belongs.")
