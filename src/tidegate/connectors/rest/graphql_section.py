"""The `graphql:` keys of a declaration: what the platform's errors mean, and what one stream's query asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidegate.connectors.graphql import ErrorCodes
from tidegate.connectors.rest.declaration import PagerDeclaration, PagerKind, StreamDeclaration
from tidegate.connectors.rest.section import Section, suggest
from tidegate.domain.cursor import Path
from tidegate.domain.errors import InvalidInput

if TYPE_CHECKING:
    from tidegate.connectors.rest.query import Query, QueryMistake

DEFAULT_PATH = "/graphql"
TOLD_BY_THE_CONNECTION = ("records", "pager")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a stream's query asks for. ``pager`` and ``records`` are None where the stream itself has to say them."""

    query: Query
    pager: PagerDeclaration | None = None
    records: Path | None = None
    inside: str = ""


def read_error_codes(section: Section | None) -> ErrorCodes:
    """Return what error codes mean: the usual ones, and those that the document adds."""
    usual = ErrorCodes()
    if section is None:
        return usual
    made = ErrorCodes(
        retryable=usual.retryable | _codes(section, "retryable_codes"),
        rate_limited=usual.rate_limited | _codes(section, "rate_limit_codes"),
        unauthorised=usual.unauthorised | _codes(section, "unauthorised_codes"),
    )
    section.finish()
    return made


def _codes(section: Section, key: str) -> frozenset[str]:
    return frozenset(str(code) for code in section.items(key))


def read_asked(stream: Section) -> Asked | None:
    """Return what the `graphql:` of a stream asks for, None for a stream without one."""
    section = stream.section("graphql")
    if section is None:
        return None
    from tidegate.connectors.rest.query import QueryMistake, read_query

    text, path = section.text("query"), section.optional_text("connection")
    section.finish()
    try:
        query = read_query(text)
        if path is None:
            return Asked(query)
        found = query.connection(tuple(path.split(".")))
    except QueryMistake as mistake:
        raise _refused(section, mistake) from None
    for key in TOLD_BY_THE_CONNECTION:
        if key in stream:
            raise stream.refuse(key, "is told by the query's connection already", "Remove it.")
    pager = PagerDeclaration(PagerKind.CURSOR, found.after, token=found.end_cursor, has_more=found.has_next_page)
    return Asked(query, pager, found.records, found.inside)


def check_asked(stream: Section, made: StreamDeclaration) -> None:
    """Raise InvalidInput if the stream and its query do not agree: variables, key and cursor."""
    query = made.query
    if query is None:
        return
    section = stream.section("graphql")
    assert section is not None
    if "method" in stream:
        raise stream.refuse("method", "is always POST for GraphQL", "Remove it.")
    if not made.records[:1] == ("data",):
        raise stream.refuse("records", "does not begin with data", "Write where the reply holds the list: data.orders.")
    bounds = [bound.param for bound in (made.lower, made.upper) if bound is not None]
    since = made.changes.param if made.changes is not None else ""
    sent = [*made.params, *made.filters, *bounds, *filter(None, [made.pager.param, since])]
    for name in sent:
        if name not in query.variables:
            raise section.refuse_line("query", 1, f"has no variable {name!r}", suggest(name, query.variables))
    for name in sorted(query.required.difference(made.params, made.filters)):
        remedy = (
            "Give it a default in the query, or a value under `params:`; bounds and pages are not always asked for."
        )
        raise section.refuse_line("query", 1, f"wants the variable {name!r}, which is not always sent", remedy)
    cursor = made.stream.cursor
    wanted = [*(tuple(key.split(".")) for key in made.stream.key), *([cursor.path] if cursor is not None else [])]
    inside = (made.inside,) if made.inside else ()
    _require_selected(section, query, (*made.records[1:], *inside), wanted)


def _require_selected(section: Section, query: Query, record: Path, wanted: list[Path]) -> None:
    from tidegate.connectors.rest.query import QueryMistake

    try:
        query.require_selected(record, wanted)
    except QueryMistake as mistake:
        raise _refused(section, mistake) from None


def _refused(section: Section, mistake: QueryMistake) -> InvalidInput:
    return section.refuse_line("query", mistake.line, mistake.problem, mistake.remedy)
