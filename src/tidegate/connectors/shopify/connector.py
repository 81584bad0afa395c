"""What the Shopify connector offers, and how one connection to a shop is opened."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType

import aiohttp

from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.rest.declaration import ParentDeclaration
from tidegate.connectors.shopify.admin import AdminAPI
from tidegate.connectors.shopify.queries import CHILDREN
from tidegate.connectors.shopify.source import ShopifySource
from tidegate.domain.capacity import RateLimit
from tidegate.domain.clock import Clock
from tidegate.domain.cursor import CursorField
from tidegate.domain.errors import InvalidInput
from tidegate.domain.stream import ColumnType, Stream

LOOKBACK = timedelta(minutes=5)
"""Re-read before a period's start: listings with search terms are answered from an index that follows the shop's
own records with a delay, usually of seconds. Re-reading is cheap: what is delivered already is not delivered again."""

_SHOP = re.compile(r"[a-z0-9][a-z0-9-]*\.myshopify\.com")
_UPDATED_AT = CursorField(path=("updatedAt",), precision=timedelta(seconds=1), changes=True, ascending=True)


class OrderHistory(StrEnum):
    """How far back orders are expected: Shopify shows older ones only to apps with the scope read_all_orders."""

    SIXTY_DAYS = "60_days"
    ALL = "all"


def _columns(*, text: str = "", timestamp: str = "", json: str = "") -> Mapping[str, ColumnType]:
    declared = dict.fromkeys(text.split(), ColumnType.TEXT)
    declared |= dict.fromkeys(timestamp.split(), ColumnType.TIMESTAMP)
    declared |= dict.fromkeys(json.split(), ColumnType.JSON)
    return MappingProxyType(declared)


_COLUMNS = {
    "orders": _columns(
        text="id legacyResourceId name confirmationNumber email phone note poNumber cancelReason",
        timestamp="createdAt updatedAt processedAt closedAt cancelledAt",
        json="tags discountCodes paymentGatewayNames customer billingAddress shippingAddress lineItems "
        "subtotalPriceSet totalDiscountsSet totalShippingPriceSet totalTaxSet totalPriceSet currentTotalPriceSet "
        "totalRefundedSet totalOutstandingSet",
    ),
    "customers": _columns(
        text="id legacyResourceId displayName firstName lastName note numberOfOrders",
        timestamp="createdAt updatedAt",
        json="tags amountSpent defaultEmailAddress defaultPhoneNumber defaultAddress",
    ),
    "products": _columns(
        text="id legacyResourceId title handle vendor productType descriptionHtml",
        timestamp="createdAt updatedAt publishedAt",
        json="tags priceRangeV2 variants",
    ),
}


@dataclass(frozen=True, slots=True)
class ShopifyConnector:
    """Orders, customers and products of a Shopify shop.

    Settings: ``shop`` (my-shop.myshopify.com) or ``base_url`` (another address with the same interface, such as the
    sandbox shop), ``order_history`` (60_days or all). Secret: ``access_token``.
    """

    name: str = "shopify"

    @property
    def streams(self) -> Mapping[str, Stream]:
        """Return the streams by name; all are edited, so all are fetched open-ended (SPEC 4)."""
        alone = {
            name: Stream(name, cursor=_UPDATED_AT, lookback=LOOKBACK, columns=columns)
            for name, columns in _COLUMNS.items()
        }
        return alone | {name: _child(name, parent) for name, parent in CHILDREN.items()}

    @property
    def rate_limit(self) -> RateLimit | None:
        """Return None: a shop counts points, not requests, and each reply tells how many are left."""
        return None

    @property
    def identity(self) -> Mapping[str, str | None]:
        """Return the shop's setting. A connection by ``base_url`` alone tells no shop: another address may be the same one."""
        return {"shop": None}

    def open(self, connection: ConnectionSettings, session: aiohttp.ClientSession, clock: Clock) -> ShopifySource:
        """Return the source of ``connection``; does no I/O. Raises InvalidInput naming a setting or the secret."""
        token = connection.secrets.get("access_token", "")
        if not token or not token.isascii() or not token.isprintable():
            raise InvalidInput(
                "secrets.access_token",
                "***" if token else "",
                "is not an access token",
                "Give the Admin API access token of the app, as shpat_….",
            )
        address = _base_url(connection.settings)
        api = AdminAPI(address, token, session, clock, connection.allowance)
        history = _order_history(connection.settings)
        return ShopifySource(api, _UPDATED_AT, all_orders_expected=history is OrderHistory.ALL, address=address)


def _child(name: str, parent: ParentDeclaration) -> Stream:
    cursor = replace(_UPDATED_AT, path=(parent.name_of(_UPDATED_AT.path),))
    parent_id = parent.name_of(("id",))
    columns = {parent_id: ColumnType.TEXT, "id": ColumnType.TEXT}
    return Stream(name, key=(parent_id, "id"), cursor=cursor, lookback=LOOKBACK, columns=columns)


def _base_url(settings: Mapping[str, object]) -> str:
    base_url = settings.get("base_url")
    if base_url is not None:
        if isinstance(base_url, str) and base_url.startswith(("http://", "https://")):
            return base_url
        raise InvalidInput("settings.base_url", base_url, "is not an address", "Write it as https://host[:port].")
    shop = settings.get("shop")
    if isinstance(shop, str) and _SHOP.fullmatch(shop):
        return f"https://{shop}"
    raise InvalidInput("settings.shop", shop, "is not a shop's domain", "Write it as my-shop.myshopify.com.")


def _order_history(settings: Mapping[str, object]) -> OrderHistory:
    value = settings.get("order_history", OrderHistory.SIXTY_DAYS)
    try:
        return OrderHistory(str(value))
    except ValueError:
        raise InvalidInput(
            "settings.order_history",
            value,
            "is not an order history",
            "Write 60_days for what every app may read, or all for apps with the scope read_all_orders.",
        ) from None
