"""The parts of Shopify's replies that the connector looks into; records stay the text they came as."""

from __future__ import annotations

import msgspec

from tidegate.connectors.graphql import GraphQLError


class ThrottleStatus(msgspec.Struct, frozen=True, rename="camel"):
    """The bucket of this app on this shop: points, and points restored per second."""

    maximum_available: float
    currently_available: float
    restore_rate: float


class Cost(msgspec.Struct, frozen=True, rename="camel"):
    """What a query costs in points, and the state of the bucket after it."""

    requested_query_cost: float
    throttle_status: ThrottleStatus


class SearchWarning(msgspec.Struct, frozen=True):
    """A search term that Shopify did not take as we meant it."""

    field: str = ""
    message: str = ""


class SearchReport(msgspec.Struct, frozen=True):
    """How Shopify understood a search query; sent because we ask for it (header Shopify-Search-Query-Debug)."""

    warnings: list[SearchWarning] = []


class Extensions(msgspec.Struct, frozen=True):
    """What stands beside the data of a reply."""

    cost: Cost | None = None
    search: list[SearchReport] | None = None


class GraphQLReply(msgspec.Struct, frozen=True):
    """A GraphQL reply; ``data`` is decoded by whoever knows the query."""

    data: msgspec.Raw = msgspec.Raw(b"null")
    errors: list[GraphQLError] | None = None
    extensions: Extensions | None = None


class PageInfo(msgspec.Struct, frozen=True, rename="camel"):
    """Where a connection's page ends and whether another follows."""

    has_next_page: bool
    end_cursor: str | None = None


class Connection(msgspec.Struct, frozen=True, rename="camel"):
    """One page of a connection."""

    nodes: list[msgspec.Raw]
    page_info: PageInfo


class AccessScope(msgspec.Struct, frozen=True):
    """One permission of the access token."""

    handle: str


class Installation(msgspec.Struct, frozen=True, rename="camel"):
    """The app as this shop installed it."""

    access_scopes: list[AccessScope]


class ListingData(msgspec.Struct, frozen=True):
    """Data of a listing query."""

    listing: Connection
    installation: Installation | None = None


class NestedRecord(msgspec.Struct, frozen=True):
    """A record of which only one nested list was asked for."""

    items: Connection


class NestedData(msgspec.Struct, frozen=True):
    """Data of a follow-up query; ``record`` is None if the record no longer exists."""

    record: NestedRecord | None = None
