"""Beginnings of declarations: a commented skeleton for each form of platform, or a shipped declaration to go on from."""

from __future__ import annotations

import re
from importlib import resources

from tidegate.connectors.rest.section import suggest
from tidegate.domain.errors import InvalidInput

KINDS = ("token", "page", "keyset", "search")
"""The skeletons; the first one is for who does not choose."""
NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def shipped() -> list[str]:
    """Return the names of the shipped declarations, sorted."""
    files = resources.files("tidegate.connectors").joinpath("declarations").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def skeleton(name: str, kind: str) -> str:
    """Return the text of a declaration called ``name``: a skeleton of a kind, or a copy of a shipped declaration.

    Raises InvalidInput for a name that cannot be a file's and a connector's, or a kind that there is none of.
    """
    if not NAME.fullmatch(name):
        raise InvalidInput("name", name, "is not a connector's name", "Use lower-case letters, digits, '-' and '_'.")
    if kind in KINDS:
        text = resources.files("tidegate.connectors").joinpath("skeletons", f"{kind}.yaml").read_text("utf-8")
        return text.replace("NAME_", name.upper().replace("-", "_") + "_").replace("NAME", name)
    if kind in shipped():
        text = resources.files("tidegate.connectors").joinpath("declarations", f"{kind}.yaml").read_text("utf-8")
        return re.sub(rf"^name: {kind}$", f"name: {name}", text, count=1, flags=re.MULTILINE)
    raise InvalidInput("--from-example", kind, "is unknown", suggest(kind, [*KINDS, *shipped()]))
