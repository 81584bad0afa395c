"""What a query costs in points by Shopify's documented arithmetic, and the bucket the points come from.

A scalar or enum costs nothing, an object 1, a connection 2 and what each of its objects costs; page information is
free. Shopify may price single fields otherwise; clients are told the true price in every reply.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    is_leaf_type,
)

SINGLE_QUERY_LIMIT = 1000
CONNECTION_COST = 2
OBJECT_COST = 1


@dataclass(slots=True)
class Bucket:
    """A leaky bucket of points: ``restore_rate`` points come back per second, up to ``maximum``."""

    maximum: float = 2000.0
    restore_rate: float = 100.0
    _spent: float = 0.0
    _at: datetime | None = None

    def available(self, now: datetime) -> float:
        """Return the points there are at ``now``."""
        if self._at is not None:
            restored = (now - self._at).total_seconds() * self.restore_rate
            self._spent = max(0.0, self._spent - max(0.0, restored))
        self._at = now
        return self.maximum - self._spent

    def spend(self, points: float, now: datetime) -> None:
        """Take ``points`` out at ``now``."""
        self.available(now)
        self._spent += points

    def status(self, now: datetime) -> dict[str, float]:
        """Return the bucket at ``now`` as Shopify reports it (throttleStatus)."""
        return {
            "maximumAvailable": self.maximum,
            "currentlyAvailable": float(int(self.available(now))),
            "restoreRate": self.restore_rate,
        }


def query_cost(
    schema: GraphQLSchema, document: DocumentNode, variables: Mapping[str, Any], data: Mapping[str, Any] | None = None
) -> int:
    """Return what the query may cost at most or, given the ``data`` it returned, what it did cost."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    operation = next(node for node in document.definitions if isinstance(node, OperationDefinitionNode))
    if schema.query_type is None:
        return 0
    pricing = _Pricing(fragments, variables, actual=data is not None)
    return pricing.selections(schema.query_type, operation.selection_set, data)


@dataclass(frozen=True, slots=True)
class _Pricing:
    fragments: Mapping[str, FragmentDefinitionNode]
    variables: Mapping[str, Any]
    actual: bool

    def selections(self, parent: GraphQLNamedType, selected: SelectionSetNode, data: Any) -> int:
        """Return the cost of what is selected on ``parent``; ``data`` is what came back for it."""
        if not isinstance(parent, GraphQLObjectType):
            return 0
        return sum(self._field(parent, field, data) for field in self._fields(selected))

    def _fields(self, selected: SelectionSetNode) -> Iterator[FieldNode]:
        for node in selected.selections:
            if isinstance(node, FieldNode):
                yield node
            elif isinstance(node, FragmentSpreadNode):
                yield from self._fields(self.fragments[node.name.value].selection_set)
            elif isinstance(node, InlineFragmentNode):
                yield from self._fields(node.selection_set)

    def _field(self, parent: GraphQLObjectType, field: FieldNode, data: Any) -> int:
        definition = parent.fields.get(field.name.value)
        if definition is None or field.selection_set is None:
            return 0
        kind = get_named_type(definition.type)
        value = (data or {}).get(field.alias.value if field.alias else field.name.value)
        if is_leaf_type(kind) or kind.name == "PageInfo" or (self.actual and value is None):
            return 0
        if kind.name.endswith("Connection"):
            return CONNECTION_COST + self._connection(kind, field, value)
        if self.actual and isinstance(value, list):
            return sum(OBJECT_COST + self.selections(kind, field.selection_set, item) for item in value)
        return OBJECT_COST + self.selections(kind, field.selection_set, value)

    def _connection(self, kind: GraphQLNamedType, field: FieldNode, value: Any) -> int:
        nodes = [part for part in self._fields(field.selection_set) if part.name.value == "nodes"]  # type: ignore[arg-type]
        if not nodes or nodes[0].selection_set is None or not isinstance(kind, GraphQLObjectType):
            return 0
        node_kind, selected = get_named_type(kind.fields["nodes"].type), nodes[0].selection_set
        if self.actual:
            return sum(OBJECT_COST + self.selections(node_kind, selected, node) for node in value["nodes"])
        return self._first(field) * (OBJECT_COST + self.selections(node_kind, selected, None))

    def _first(self, field: FieldNode) -> int:
        for argument in field.arguments or ():
            if argument.name.value == "first":
                if isinstance(argument.value, IntValueNode):
                    return int(argument.value.value)
                if isinstance(argument.value, VariableNode):
                    return int(self.variables.get(argument.value.name.value) or 0)
        return 0
