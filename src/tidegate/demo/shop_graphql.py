"""Executes GraphQL on the sandbox shop: real parsing, validation and execution over a part of Shopify's schema."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLFieldResolver,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    build_schema,
    execute_sync,
    parse,
    validate,
)

from tidegate.demo.shop import Shop
from tidegate.demo.shop_cost import query_cost
from tidegate.demo.shop_goods import Record
from tidegate.demo.shop_search import parse_search

MAX_PAGE_SIZE = 250
_NESTED_LISTS = {"Order": "lineItems", "Product": "variants"}


@dataclass(slots=True)
class _Call:
    """What the resolvers of one request share; ``searches`` gathers how search terms were understood."""

    shop: Shop
    searches: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one executed query. ``searches``: how its search terms were understood, for the extensions."""

    data: dict[str, Any] | None
    errors: list[dict[str, Any]]
    searches: list[dict[str, Any]]


@lru_cache(maxsize=1)
def shop_schema() -> GraphQLSchema:
    """Return the sandbox's schema with its resolvers; records resolve themselves, field by name."""
    schema = build_schema(files("tidegate.demo").joinpath("shop_schema.graphql").read_text("utf-8"))
    query = schema.query_type
    assert query is not None
    query.fields["currentAppInstallation"].resolve = _resolve_installation
    for stream in ("orders", "customers", "products"):
        query.fields[stream].resolve = _listing(stream)
    for name, stream in (("order", "orders"), ("product", "products")):
        query.fields[name].resolve = _single(stream)
    for type_name, list_name in _NESTED_LISTS.items():
        owner = schema.type_map[type_name]
        assert isinstance(owner, GraphQLObjectType)
        owner.fields[list_name].resolve = _nested(list_name)
    return schema


@lru_cache(maxsize=64)
def read_query(text: str) -> tuple[DocumentNode | None, tuple[str, ...]]:
    """Return the parsed query and what is wrong with it; None if it cannot be parsed."""
    try:
        document = parse(text)
    except GraphQLError as error:
        return None, (error.message,)
    return document, tuple(error.message for error in validate(shop_schema(), document))


def requested_cost(document: DocumentNode, variables: Mapping[str, Any]) -> int:
    """Return what the query may cost at most, in points."""
    return query_cost(shop_schema(), document, variables)


def actual_cost(document: DocumentNode, variables: Mapping[str, Any], outcome: Outcome) -> int:
    """Return what the query did cost, in points."""
    return query_cost(shop_schema(), document, variables, outcome.data or {})


def run_query(shop: Shop, document: DocumentNode, variables: Mapping[str, Any]) -> Outcome:
    """Return what the query yields on ``shop`` as it is now."""
    call = _Call(shop)
    result = execute_sync(shop_schema(), document, context_value=call, variable_values=dict(variables))
    errors = [dict(error.formatted) for error in result.errors or []]
    return Outcome(result.data, errors, call.searches)


def _resolve_installation(_root: object, info: GraphQLResolveInfo[_Call]) -> Record:
    return {"accessScopes": [{"handle": handle} for handle in sorted(info.context.shop.scopes)]}


def _listing(stream: str) -> GraphQLFieldResolver:
    def resolve(
        _root: object,
        info: GraphQLResolveInfo[_Call],
        first: int | None = None,
        after: str | None = None,
        query: str | None = None,
        sortKey: str = "ID",  # noqa: N803, the schema's own name
    ) -> Record:
        call = info.context
        _require_scope(call.shop, stream, info.field_name)
        search = parse_search(stream, query or "")
        if search.warnings:
            call.searches.append({"path": [info.path.key], "query": query, "warnings": list(search.warnings)})
        place = _Cursor.read(after, sortKey)
        size = min(_page_size(first), call.shop.paging_limit - place.depth)
        by_updated_at = sortKey == "UPDATED_AT"
        page = call.shop.page(stream, search, after=place.position, first=size, by_updated_at=by_updated_at)
        depth = place.depth + len(page.rows)
        ends = [_Cursor(sortKey, position, depth) for position, _ in page.rows]
        return {
            "nodes": [record for _, record in page.rows],
            "pageInfo": {
                "hasNextPage": page.more
                and depth < call.shop.paging_limit,  # cut short without a word, as Shopify does
                "hasPreviousPage": after is not None,
                "startCursor": ends[0].text() if ends else None,
                "endCursor": ends[-1].text() if ends else None,
            },
        }

    return resolve


def _single(stream: str) -> GraphQLFieldResolver:
    def resolve(_root: object, info: GraphQLResolveInfo[_Call], **arguments: str) -> Record | None:
        call = info.context
        _require_scope(call.shop, stream, info.field_name)
        return call.shop.get(stream, arguments["id"])

    return resolve


def _nested(name: str) -> GraphQLFieldResolver:
    def resolve(
        record: Record, _info: GraphQLResolveInfo[_Call], first: int | None = None, after: str | None = None
    ) -> Record:
        items = record[name]
        start = 0 if after is None else (_Cursor.read(after, name).position or (0, 0))[1]
        end = min(start + _page_size(first), len(items))
        return {
            "nodes": items[start:end],
            "pageInfo": {
                "hasNextPage": end < len(items),
                "hasPreviousPage": start > 0,
                "startCursor": _Cursor(name, (0, start), 0).text(),
                "endCursor": _Cursor(name, (0, end), 0).text(),
            },
        }

    return resolve


def _page_size(first: int | None) -> int:
    if first is None:
        raise GraphQLError("you must provide one of first or last", extensions={"code": "BAD_REQUEST"})
    if not 0 < first <= MAX_PAGE_SIZE:
        message = f"first must be between 1 and {MAX_PAGE_SIZE}"
        raise GraphQLError(message, extensions={"code": "BAD_REQUEST"})
    return first


def _require_scope(shop: Shop, stream: str, field_name: str) -> None:
    scope = f"read_{stream}"
    if scope not in shop.scopes:
        message = f"Access denied for {field_name} field. Required access: `{scope}` access scope."
        raise GraphQLError(message, extensions={"code": "ACCESS_DENIED", "requiredAccess": scope})


@dataclass(frozen=True, slots=True)
class _Cursor:
    """A place in an order, opaque to clients: which order, behind which position, how many records into it."""

    order: str
    position: tuple[int, int] | None
    depth: int

    def text(self) -> str:
        """Return the cursor as clients get it."""
        return base64.b64encode(json.dumps([self.order, self.position, self.depth]).encode()).decode()

    @classmethod
    def read(cls, text: str | None, order: str) -> _Cursor:
        """Return the place ``text`` names in ``order``, its beginning for None. Raises GraphQLError if it names none."""
        if text is None:
            return cls(order, None, 0)
        try:
            known_order, (value, number), depth = json.loads(base64.b64decode(text, validate=True))
        except (ValueError, TypeError, binascii.Error):
            known_order, value, number, depth = None, 0, 0, 0
        if known_order != order:
            raise GraphQLError("Invalid cursor for current pagination sort.", extensions={"code": "BAD_REQUEST"})
        return cls(order, (int(value), int(number)), int(depth))
