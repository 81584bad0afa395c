"""From a connector's name, or the path of its YAML file, to the Connector."""

from __future__ import annotations

import importlib
from importlib import resources
from pathlib import Path

from tidegate.connectors.base import Connector
from tidegate.connectors.rest.connector import RestConnector
from tidegate.connectors.rest.loader import load
from tidegate.connectors.rest.section import suggest
from tidegate.connectors.skeletons import shipped
from tidegate.domain.errors import InvalidInput

WRITTEN_IN_PYTHON = {"shopify": "tidegate.connectors.shopify:ShopifyConnector"}
SUFFIXES = (".yaml", ".yml")


def names() -> list[str]:
    """Return the names of all shipped connectors, sorted."""
    return sorted([*shipped(), *WRITTEN_IN_PYTHON])


def find_connector(name: str) -> Connector:
    """Return the connector called ``name``, or declared in the file at that path if it ends in .yaml or .yml.

    Raises InvalidInput for an unknown name, an unreadable file or a declaration that is not one.
    """
    if name.endswith(SUFFIXES):
        return RestConnector(load(_text(Path(name))))
    if name in WRITTEN_IN_PYTHON:
        module, _, attribute = WRITTEN_IN_PYTHON[name].partition(":")
        made: Connector = getattr(importlib.import_module(module), attribute)()
        return made
    if name in names():
        file = resources.files("tidegate.connectors").joinpath("declarations", f"{name}.yaml")
        return RestConnector(load(file.read_text("utf-8")))
    raise InvalidInput("connector", name, "is unknown", f"{suggest(name, names())} Or give a .yaml file's path.")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            "connector", str(path), f"cannot be read ({error})", "Give the path of a YAML file."
        ) from None
