"""Shopify's own schema of the Admin API, from the npm package that publishes it."""

from __future__ import annotations

import gzip
import json
import re

import pytest
from graphql import GraphQLSchema, build_client_schema

from tests.connectors.published import published
from tidegate.connectors.shopify.queries import API_VERSION

PACKAGE = "@shopify/dev-mcp@1.16.0"
MEMBER = f"package/dist/data/admin_{API_VERSION}.json.gz"


@pytest.fixture(scope="session")
def admin_schema(request: pytest.FixtureRequest) -> GraphQLSchema:
    """Shopify's schema of the version the connector speaks; fetched once into .cache, fails if it cannot be had."""
    (packed,) = published(request.config, PACKAGE, re.escape(MEMBER)).values()
    introspection = json.loads(gzip.decompress(packed))
    return build_client_schema(introspection.get("data", introspection), assume_valid=True)
