"""The Shopify connector: orders, customers and products through the Admin GraphQL API (SPEC 4)."""

from tidegate.connectors.shopify.connector import ShopifyConnector

__all__ = ["ShopifyConnector"]
