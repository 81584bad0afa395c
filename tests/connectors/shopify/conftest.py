"""Shopify's own schema of the Admin API, from the npm package that publishes it."""

from __future__ import annotations

import gzip
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from graphql import GraphQLSchema, build_client_schema

from tidegate.connectors.shopify.queries import API_VERSION

PACKAGE = "@shopify/dev-mcp@1.16.0"
ARCHIVE = "shopify-dev-mcp-1.16.0.tgz"
MEMBER = f"package/dist/data/admin_{API_VERSION}.json.gz"


@pytest.fixture(scope="session")
def admin_schema(request: pytest.FixtureRequest) -> GraphQLSchema:
    """Shopify's schema of the version the connector speaks; fetched once into .cache, fails if it cannot be had."""
    folder = request.config.rootpath / ".cache" / "shopify"
    archive = folder / ARCHIVE
    if not archive.exists():
        _pack(folder)
    with tarfile.open(archive) as package:
        member = package.extractfile(MEMBER)
        assert member is not None, f"{PACKAGE} holds no {MEMBER}"
        introspection = json.loads(gzip.decompress(member.read()))
    return build_client_schema(introspection.get("data", introspection), assume_valid=True)


def _pack(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", "--silent", PACKAGE]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.fail(f"Shopify's schema is needed and npm does not run: {error}")
    if done.returncode != 0:
        pytest.fail(f"Shopify's schema is needed and npm cannot fetch {PACKAGE}: {done.stderr.strip()}")
