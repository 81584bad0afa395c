"""The `parent:` of a child stream: whose children its records are, and how they are told apart and ordered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tidegate.connectors.rest.declaration import ParentDeclaration, StreamDeclaration
from tidegate.connectors.rest.section import Section, suggest
from tidegate.connectors.rest.template import parent_fields
from tidegate.domain.cursor import Path
from tidegate.domain.stream import Stream

DEFAULT_PREFIX = "parent_"
OF_THE_PARENT = ("changes", "cursor", "lookback_seconds", "history_seconds", "lower", "upper")
OF_A_REQUEST = ("method", "records", "params", "filters", "page_size", "pager")


def read_parent(stream: Section) -> ParentDeclaration | None:
    """Return whose children the stream's records are, as far as its own section says; `adopted` does the rest."""
    section = stream.section("parent")
    if section is None:
        return None
    each, has_more = section.optional_text("each"), section.optional_text("has_more")
    at_most = section.integer("at_most", 0)
    made = ParentDeclaration(
        stream=section.text("stream"),
        prefix=section.text("prefix", DEFAULT_PREFIX),
        each=_path(each) if each else None,
        has_more=_path(has_more) if has_more else None,
        at_most=at_most or None,
        optional=section.flag("optional", False),
        fields=tuple(_path(str(name)) for name in section.items("fields")),
    )
    section.finish()
    if made.each is None and (made.has_more or made.at_most or made.optional):
        raise section.refuse("each", "is missing", "Say where the parent's record holds the list that is meant.")
    for key in OF_THE_PARENT:
        if key in stream:
            remedy = f"Remove it: children are fetched and ordered as their {made.stream} are."
            raise stream.refuse(key, "belongs to the parent", remedy)
    for key in OF_A_REQUEST:
        if key in stream and "path" not in stream and "graphql" not in stream:
            raise stream.refuse(key, "belongs to a request, and none is made", "Add a `path:`, or remove it.")
    return made


def _path(text: str) -> Path:
    return tuple(text.split("."))


def adopted(section: Section, made: StreamDeclaration, streams: Mapping[str, StreamDeclaration]) -> StreamDeclaration:
    """Return ``made`` with key, cursor and lookback from its parent; one without a parent must not ask for its fields.

    Raises InvalidInput for a parent that is not there, or that cannot have children.
    """
    wanted = _wanted(made)
    if made.parent is None:
        if wanted:
            raise section.refuse("path", "asks for a field of a parent that is not declared", "Add `parent:`.")
        return made
    parent = _found(section, made.parent, streams)
    if made.path and not wanted:
        raise section.refuse("path", "is the same for every parent", "Put {parent.id} into `path:` or `params:`.")
    if not made.path and made.parent.each is None:
        remedy = "Add `each:` under `parent:` if its record holds them, or a `path:` with {parent.id}."
        raise section.refuse("parent", "does not say where its children are", remedy)
    _require_asked_for(section, made.parent, parent)
    return _with_parent(section, made, parent)


def _wanted(made: StreamDeclaration) -> list[Path]:
    texts = [made.path, *map(str, made.params.values()), *map(str, made.filters.values())]
    return [path for text in texts for path in parent_fields(text)]


def _found(
    section: Section, declared: ParentDeclaration, streams: Mapping[str, StreamDeclaration]
) -> StreamDeclaration:
    where = section.required_section("parent")
    parents = {name: made for name, made in streams.items() if made.parent is None and made.changes is None}
    if declared.stream not in parents:
        problem = "is not a stream of this document"
        if declared.stream in streams:
            problem = "is a child itself" if streams[declared.stream].parent else "is a change feed"
        raise where.refuse("stream", problem, suggest(declared.stream, parents))
    return parents[declared.stream]


def _require_asked_for(section: Section, declared: ParentDeclaration, parent: StreamDeclaration) -> None:
    """Raise InvalidInput if the parent's GraphQL query does not ask for what its children are read from."""
    if parent.query is None:
        return
    from tidegate.connectors.rest.query import QueryMistake

    record = (*parent.records[1:], *([parent.inside] if parent.inside else []))
    wanted = [path for path in (declared.each, declared.has_more, *declared.fields) if path is not None]
    try:
        parent.query.require_selected(record, wanted)
    except QueryMistake as mistake:
        remedy = f"Ask for it in the query of {declared.stream}."
        raise section.refuse("parent", f"needs what the query of {declared.stream} {mistake.problem}", remedy) from None


def _with_parent(section: Section, made: StreamDeclaration, parent: StreamDeclaration) -> StreamDeclaration:
    assert made.parent is not None
    keys: list[Path] = [_path(part) for part in parent.stream.key]
    cursor = parent.stream.cursor
    ordered = [] if cursor is None else [cursor.path]
    fields = tuple(dict.fromkeys([*keys, *ordered, *made.parent.fields]))
    declared = replace(made.parent, fields=fields, own_key=made.stream.key)
    names = [declared.name_of(path) for path in fields]
    if len(set(names)) < len(names):
        raise section.refuse("parent", "carries two fields of one name into its children", "Leave one of them out.")
    types = {declared.name_of((name,)): kind for name, kind in parent.stream.columns.items() if (name,) in fields}
    stream = Stream(
        name=made.stream.name,
        key=(*(declared.name_of(path) for path in keys), *made.stream.key),
        cursor=None if cursor is None else replace(cursor, path=(declared.name_of(cursor.path),)),
        lookback=parent.stream.lookback,
        overshoot=parent.stream.overshoot,
        columns={**types, **made.stream.columns},
    )
    return replace(made, stream=stream, parent=declared)
