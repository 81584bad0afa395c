"""Every GraphQL document the connector can send, and the listings made of them.

Written for Admin API version 2026-10 and validated against its published schema by the tests. ``listing``,
``record`` and ``items`` are aliases, so that replies of all streams have one shape.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.connectors.rest.declaration import ParentDeclaration

API_VERSION = "2026-10"
ALL_ORDERS_SCOPE = "read_all_orders"

_MONEY = """
fragment Money on MoneyBag {
  shopMoney { amount currencyCode }
  presentmentMoney { amount currencyCode }
}
"""

_ADDRESS = """
fragment Address on MailingAddress {
  name firstName lastName company address1 address2 city province provinceCode zip countryCodeV2 phone
}
"""

_LINE_ITEM = """
fragment LineItem on LineItem {
  id name title variantTitle sku vendor quantity currentQuantity unfulfilledQuantity
  requiresShipping taxable isGiftCard
  product { id }
  variant { id }
  originalUnitPriceSet { ...Money }
  discountedTotalSet { ...Money }
}
"""

_VARIANT = """
fragment Variant on ProductVariant {
  id title sku barcode price compareAtPrice position inventoryQuantity taxable availableForSale createdAt updatedAt
  selectedOptions { name value }
  inventoryItem { id }
}
"""

ORDERS = (
    """
query Orders($first: Int!, $after: String, $query: String!) {
  installation: currentAppInstallation { accessScopes { handle } }
  listing: orders(first: $first, after: $after, query: $query, sortKey: UPDATED_AT) {
    nodes {
      id legacyResourceId name confirmationNumber createdAt updatedAt processedAt closedAt closed
      cancelledAt cancelReason confirmed test email phone note tags poNumber sourceName customerLocale
      currencyCode presentmentCurrencyCode taxesIncluded taxExempt discountCodes paymentGatewayNames
      displayFinancialStatus displayFulfillmentStatus returnStatus
      subtotalLineItemsQuantity currentSubtotalLineItemsQuantity totalWeight
      customer { id }
      billingAddress { ...Address }
      shippingAddress { ...Address }
      subtotalPriceSet { ...Money }
      totalDiscountsSet { ...Money }
      totalShippingPriceSet { ...Money }
      totalTaxSet { ...Money }
      totalPriceSet { ...Money }
      currentTotalPriceSet { ...Money }
      totalRefundedSet { ...Money }
      totalOutstandingSet { ...Money }
      lineItems(first: 5) { nodes { ...LineItem } pageInfo { hasNextPage endCursor } }
    }
    pageInfo { hasNextPage endCursor }
  }
}
"""
    + _MONEY
    + _ADDRESS
    + _LINE_ITEM
)

ORDER_LINE_ITEMS = (
    """
query OrderLineItems($id: ID!, $first: Int!, $after: String) {
  record: order(id: $id) {
    items: lineItems(first: $first, after: $after) {
      nodes { ...LineItem }
      pageInfo { hasNextPage endCursor }
    }
  }
}
"""
    + _MONEY
    + _LINE_ITEM
)

CUSTOMERS = (
    """
query Customers($first: Int!, $after: String, $query: String!) {
  listing: customers(first: $first, after: $after, query: $query, sortKey: UPDATED_AT) {
    nodes {
      id legacyResourceId createdAt updatedAt displayName firstName lastName state note tags locale
      taxExempt verifiedEmail numberOfOrders
      amountSpent { amount currencyCode }
      defaultEmailAddress { emailAddress marketingState }
      defaultPhoneNumber { phoneNumber }
      defaultAddress { ...Address }
    }
    pageInfo { hasNextPage endCursor }
  }
}
"""
    + _ADDRESS
)

PRODUCTS = (
    """
query Products($first: Int!, $after: String, $query: String!) {
  listing: products(first: $first, after: $after, query: $query, sortKey: UPDATED_AT) {
    nodes {
      id legacyResourceId title handle status vendor productType tags descriptionHtml
      createdAt updatedAt publishedAt isGiftCard tracksInventory totalInventory hasOnlyDefaultVariant
      priceRangeV2 {
        minVariantPrice { amount currencyCode }
        maxVariantPrice { amount currencyCode }
      }
      variants(first: 10) { nodes { ...Variant } pageInfo { hasNextPage endCursor } }
    }
    pageInfo { hasNextPage endCursor }
  }
}
"""
    + _VARIANT
)

PRODUCT_VARIANTS = (
    """
query ProductVariants($id: ID!, $first: Int!, $after: String) {
  record: product(id: $id) {
    items: variants(first: $first, after: $after) {
      nodes { ...Variant }
      pageInfo { hasNextPage endCursor }
    }
  }
}
"""
    + _VARIANT
)


@dataclass(frozen=True, slots=True)
class Nested:
    """A list inside a record: the record's ``field``, and the query that reads what the first page left out."""

    field: str
    query: str
    page_size: int


@dataclass(frozen=True, slots=True)
class Listing:
    """How one stream is listed.

    ``filter``: the search terms every listing carries besides its bounds. ``page_size``: what is asked for until a
    reply has said what a record costs; kept under Shopify's limit of 1000 points by its documented arithmetic.
    """

    query: str
    page_size: int
    filter: str = ""
    nested: tuple[Nested, ...] = ()


CHILDREN = {
    "order_line_items": ParentDeclaration("orders", "order_", ("lineItems",), fields=(("id",), ("updatedAt",))),
    "product_variants": ParentDeclaration("products", "product_", ("variants",), fields=(("id",), ("updatedAt",))),
}
"""Streams of what is nested in the records of another, whose lists are always completed first."""

LISTINGS = {
    "orders": Listing(
        ORDERS,
        page_size=10,
        filter="status:any",  # else closed and cancelled orders may be left out (HOLE w)
        nested=(Nested("lineItems", ORDER_LINE_ITEMS, page_size=50),),
    ),
    "customers": Listing(CUSTOMERS, page_size=100),
    "products": Listing(PRODUCTS, page_size=20, nested=(Nested("variants", PRODUCT_VARIANTS, page_size=100),)),
}
