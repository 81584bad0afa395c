"""A JSON body as declared: a tree whose texts may name request parameters, each put where the platform wants it.

A text that is one ``{name}`` becomes that parameter's value, of its own type; inside a longer text it is written out. Where
a parameter is not sent this time (no lower bound, no page token yet), the innermost list item around it is left out, or
the member of the document where there is no list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress

from tidegate.connectors.rest.declaration import Param, Tree

NAMED = re.compile(r"\{([A-Za-z0-9_\[\].-]+)\}")


class _Absent(Exception):
    pass


def named_in(tree: Tree) -> Iterator[str]:
    """Yield the names of the parameters that ``tree`` places; settings are among them as ``settings.NAME``."""
    if isinstance(tree, str):
        yield from NAMED.findall(tree)
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from named_in(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from named_in(value)


def fill_body(tree: Mapping[str, Tree], params: Mapping[str, Param]) -> Mapping[str, Tree]:
    """Return ``tree`` with its parameters in place."""
    made: dict[str, Tree] = {}
    for name, value in tree.items():
        try:
            made[name] = fill_body(value, params) if isinstance(value, Mapping) else _filled(value, params)
        except _Absent:
            continue
    return made


def _filled(tree: Tree, params: Mapping[str, Param]) -> Tree:
    """Return ``tree`` filled in; raises _Absent if a parameter outside any list of its own is not sent."""
    if isinstance(tree, str):
        return _text(tree, params)
    if isinstance(tree, Mapping):
        return {name: _filled(value, params) for name, value in tree.items()}
    if not isinstance(tree, list):
        return tree
    made = []
    for item in tree:
        with suppress(_Absent):
            made.append(_filled(item, params))
    return made


def _text(text: str, params: Mapping[str, Param]) -> Tree:
    whole = NAMED.fullmatch(text)
    missing = [name for name in NAMED.findall(text) if name not in params]
    if missing:
        raise _Absent
    return params[whole[1]] if whole else NAMED.sub(lambda found: str(params[found[1]]), text)
