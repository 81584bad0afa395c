"""Every document the connector can send, held against Shopify's real schema and its documented limits."""

from __future__ import annotations

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    NoDeprecatedCustomRule,
    parse,
    specified_rules,
    validate,
)

from tidegate.connectors.shopify import queries
from tidegate.connectors.shopify.connector import ShopifyConnector
from tidegate.connectors.shopify.pace import MAX_PAGE_SIZE, SINGLE_QUERY_LIMIT
from tidegate.connectors.shopify.queries import LISTINGS
from tidegate.demo.shop_cost import query_cost
from tidegate.demo.shop_graphql import shop_schema

DOCUMENTS = {
    "orders": (queries.ORDERS, LISTINGS["orders"].page_size),
    "customers": (queries.CUSTOMERS, LISTINGS["customers"].page_size),
    "products": (queries.PRODUCTS, LISTINGS["products"].page_size),
    "order line items": (queries.ORDER_LINE_ITEMS, LISTINGS["orders"].nested[0].page_size),
    "product variants": (queries.PRODUCT_VARIANTS, LISTINGS["products"].nested[0].page_size),
}


def test_every_document_the_connector_can_send_is_listed_here() -> None:
    sendable = {listing.query for listing in LISTINGS.values()}
    sendable |= {part.query for listing in LISTINGS.values() for part in listing.nested}
    assert sendable == {text for text, _ in DOCUMENTS.values()}
    assert {*LISTINGS, *queries.CHILDREN} == set(ShopifyConnector().streams)
    assert {parent.stream for parent in queries.CHILDREN.values()} <= set(LISTINGS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_is_valid_and_uses_nothing_deprecated_in_shopifys_schema(
    name: str, admin_schema: GraphQLSchema
) -> None:
    rules = (*specified_rules, NoDeprecatedCustomRule)
    assert [error.message for error in validate(admin_schema, parse(DOCUMENTS[name][0]), rules)] == []


def test_validation_against_shopifys_schema_can_fail(admin_schema: GraphQLSchema) -> None:
    broken = parse(queries.ORDERS.replace("displayFinancialStatus", "financialStatus"))
    assert any("financialStatus" in error.message for error in validate(admin_schema, broken))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_first_page_fits_the_limit_of_one_query_by_the_documented_arithmetic(
    name: str, admin_schema: GraphQLSchema
) -> None:
    text, size = DOCUMENTS[name]
    cost = query_cost(admin_schema, parse(text), {"first": size})
    assert 0 < cost <= SINGLE_QUERY_LIMIT
    assert size <= MAX_PAGE_SIZE
    assert query_cost(shop_schema(), parse(text), {"first": size}) == cost


@pytest.mark.parametrize("stream", LISTINGS)
def test_key_cursor_and_declared_columns_are_selected(stream: str, admin_schema: GraphQLSchema) -> None:
    """A declared column that no record has would be a column that is always empty."""
    declared = ShopifyConnector().streams[stream]
    text = LISTINGS[stream].query
    assert declared.cursor is not None
    owner = admin_schema.type_map[stream.removesuffix("s").capitalize()]
    assert isinstance(owner, GraphQLObjectType)
    for field in {*declared.key, *declared.cursor.path, *declared.columns}:
        assert field in owner.fields
        assert f" {field}" in text


def test_sandbox_schema_is_part_of_shopifys(admin_schema: GraphQLSchema) -> None:
    """Every type, field, argument and enum value of the sandbox shop is Shopify's, of the same type."""
    checked = 0
    for name, ours in shop_schema().type_map.items():
        if name.startswith("__"):
            continue
        theirs = admin_schema.query_type if name == "Query" else admin_schema.type_map[name]
        if isinstance(ours, GraphQLEnumType):
            assert isinstance(theirs, GraphQLEnumType)
            assert set(ours.values) <= set(theirs.values), name
        if isinstance(ours, GraphQLObjectType):
            assert isinstance(theirs, GraphQLObjectType | GraphQLInterfaceType)
            for field_name, field in ours.fields.items():
                assert str(field.type) == str(theirs.fields[field_name].type), f"{name}.{field_name}"
                for argument_name, argument in field.args.items():
                    assert str(argument.type) == str(theirs.fields[field_name].args[argument_name].type)
                checked += 1
    assert checked > 100
