"""A stream's GraphQL query, read when its declaration is loaded: what it asks for, and where the reply will hold it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    Node,
    NonNullTypeNode,
    OperationDefinitionNode,
    OperationType,
    VariableNode,
    build_schema,
    parse,
    validate,
)
from graphql import validation as rules

from tidegate.connectors.rest.section import suggest
from tidegate.domain.cursor import Path

_RULES = (
    rules.KnownFragmentNamesRule,
    rules.NoFragmentCyclesRule,
    rules.NoUndefinedVariablesRule,
    rules.NoUnusedFragmentsRule,
    rules.NoUnusedVariablesRule,
    rules.UniqueArgumentNamesRule,
    rules.UniqueFragmentNamesRule,
    rules.UniqueInputFieldNamesRule,
    rules.UniqueVariableNamesRule,
)
"""What can be said of a query without knowing the server's schema."""


class QueryMistake(Exception):
    """What is wrong with a query: the ``line`` of its text, from 1, the problem and the remedy."""

    def __init__(self, line: int, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.line, self.problem, self.remedy = line, problem, remedy


@dataclass(frozen=True, slots=True)
class Connection:
    """One list of a query, in pages: where the reply holds its parts, and which variable asks for the next page.

    ``inside``: the member of each element that is the record, "" if the element itself is (`nodes` and `edges`).
    """

    records: Path
    inside: str
    end_cursor: Path
    has_next_page: Path
    after: str


@dataclass(frozen=True)
class Query:
    """One parsed query. ``required``: the variables that have to be sent; ``variables``: all of them."""

    text: str
    name: str
    variables: tuple[str, ...]
    required: frozenset[str]
    _root: OperationDefinitionNode = field(repr=False)
    _fragments: Mapping[str, FragmentDefinitionNode] = field(repr=False)

    def connection(self, path: Path) -> Connection:
        """Return the list that stands at ``path`` below ``data``. Raises QueryMistake if it cannot be paged forwards."""
        found = self._at(path)
        parts = {part.name.value: part for part in self._fields(found)}
        name, line = ".".join(path), _line(found)
        page_info = parts.get("pageInfo")
        told = {part.name.value: _key(part) for part in self._fields(page_info)}
        if page_info is None or not {"hasNextPage", "endCursor"} <= told.keys():
            raise QueryMistake(line, f"does not ask {name} for pageInfo", "Add `pageInfo { hasNextPage endCursor }`.")
        given = {argument.name.value: argument.value for argument in found.arguments or ()}
        after = given.get("after")
        if not isinstance(after, VariableNode):
            remedy = "Declare `$after: String` and write `after: $after`: lists are read forwards."
            raise QueryMistake(line, f"does not say after which record {name} goes on", remedy)
        if "last" in given or "before" in given:
            raise QueryMistake(line, f"reads {name} backwards", "Write `first:` and `after:` instead.")
        at, info = ("data", *path), ("data", *path, _key(page_info))
        records, inside = self._list(parts, name, line)
        return Connection(
            (*at, records), inside, (*info, told["endCursor"]), (*info, told["hasNextPage"]), after.name.value
        )

    def _list(self, parts: Mapping[str, FieldNode], name: str, line: int) -> tuple[str, str]:
        if "nodes" in parts:
            return _key(parts["nodes"]), ""
        edges = parts.get("edges")
        for part in self._fields(edges):
            if edges is not None and part.name.value == "node":
                return _key(edges), _key(part)
        raise QueryMistake(line, f"asks {name} for no records", "Add `nodes { … }` or `edges { node { … } }`.")

    def require_selected(self, records: Path, wanted: Iterable[Path]) -> None:
        """Raise QueryMistake for the first of the ``wanted`` fields that the query does not ask each record for.

        ``records``: where a record stands, below ``data``.
        """
        record = self._at(records)
        for path in wanted:
            self._at(path, record, f"does not ask for {'.'.join(path)}, which the stream needs")

    def _at(self, path: Path, start: FieldNode | None = None, problem: str = "") -> FieldNode:
        found = start
        for depth, name in enumerate(path):
            if found is not None and found is not start and found.selection_set is None:
                return found  # a value of a type of its own, such as JSON: what is in it is not for the query to say
            named = {_key(part): part for part in self._fields(found or self._root)}
            if name not in named:
                said = problem or f"asks for nothing called {'.'.join(path[: depth + 1])}"
                raise QueryMistake(_line(found), said, suggest(name, named))
            found = named[name]
        if found is None:
            raise QueryMistake(1, "is asked for a list that is the whole reply", "Name the list's path below `data`.")
        return found

    def _fields(
        self, of: OperationDefinitionNode | FieldNode | InlineFragmentNode | FragmentDefinitionNode | None
    ) -> Iterator[FieldNode]:
        """Yield the fields asked for in ``of``, those of its fragments among them."""
        for selection in of.selection_set.selections if of is not None and of.selection_set is not None else ():
            if isinstance(selection, FieldNode):
                yield selection
            elif isinstance(selection, InlineFragmentNode):
                yield from self._fields(selection)
            elif isinstance(selection, FragmentSpreadNode):
                yield from self._fields(self._fragments[selection.name.value])


def read_query(text: str) -> Query:
    """Return the query that ``text`` holds. Raises QueryMistake for anything but one query that stands on its own."""
    try:
        document = parse(text)
    except GraphQLError as error:
        problem = f"is not GraphQL: {error.message.rstrip('.')}"
        raise QueryMistake(_line_of(error), problem, "Correct the syntax there.") from None
    operation = _operation(document)
    for wrong in validate(_no_schema(), document, _RULES):
        raise QueryMistake(_line_of(wrong), f"is wrong: {wrong.message.rstrip('.')}", "Correct the query.")
    definitions = operation.variable_definitions or ()
    return Query(
        text=text,
        name=operation.name.value if operation.name else "",
        variables=tuple(made.variable.name.value for made in definitions),
        required=frozenset(
            made.variable.name.value
            for made in definitions
            if isinstance(made.type, NonNullTypeNode) and made.default_value is None
        ),
        _root=operation,
        _fragments={made.name.value: made for made in document.definitions if isinstance(made, FragmentDefinitionNode)},
    )


def _operation(document: DocumentNode) -> OperationDefinitionNode:
    operations = [made for made in document.definitions if isinstance(made, OperationDefinitionNode)]
    if len(operations) != 1 or operations[0].operation is not OperationType.QUERY:
        raise QueryMistake(
            _line(operations[-1] if operations else None), "is not one query", "Write a single `query { … }`."
        )
    return operations[0]


@cache
def _no_schema() -> GraphQLSchema:
    return build_schema("type Query { unknown: Int }")


def _key(node: FieldNode) -> str:
    """Return the name under which the reply holds a field: its alias, if it has one."""
    return node.alias.value if node.alias else node.name.value


def _line_of(error: GraphQLError) -> int:
    return error.locations[0].line if error.locations else 1


def _line(node: Node | None) -> int:
    return node.loc.start_token.line if node is not None and node.loc is not None else 1
