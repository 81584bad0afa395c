"""YAML as people write it here: one reading for schedules, configurations and connectors, by the rules of JSON.

Dates and times stay text, and so does every number and truth value that JSON does not know: to YAML 1.1 ``010`` is 8,
``1:30`` is 90 and ``NO`` is false. Keys are names and stay as they are written: ``1.10`` is not ``1.1``.
Anchors, aliases and merge keys (``<<``) work.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Any, Final

import yaml

MOST_VALUES: Final = 2_000_000
"""Values of one document, aliases written out: a bound, so that a small file cannot fill the memory."""
_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = f"{_TAG}merge"
_NOT_OURS: Final = (f"{_TAG}timestamp", f"{_TAG}int", f"{_TAG}float", f"{_TAG}bool")
_TRUTH: Final = {"true": True, "false": False}
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_PARSER):  # type: ignore[misc]  # the C parser has no types
    yaml_implicit_resolvers = {  # noqa: RUF012  PyYAML's own name and kind
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NOT_OURS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_WHOLE = r"-?(?:0|[1-9][0-9]*)"
_DIGITS = list("-0123456789")
_Loader.add_implicit_resolver(f"{_TAG}int", re.compile(rf"{_WHOLE}$"), _DIGITS)
_Loader.add_implicit_resolver(
    f"{_TAG}float", re.compile(rf"{_WHOLE}(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$"), _DIGITS
)  # whatever the first has taken is whole
_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF"))


def compose(text: str) -> yaml.Node | None:
    """Return the root node of a document, None if it is empty. Raises yaml.YAMLError or RecursionError."""
    node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    return node


def flatten(node: yaml.MappingNode) -> None:
    """Put what a mapping's merge keys name in their place; its own keys win, then the first that names one.

    Raises ValueError, saying the line, for a merge key that names no mapping.
    """
    merged = [value for key, value in node.value if key.tag == _MERGE]
    if not merged:
        return
    node.value = [(key, value) for key, value in node.value if key.tag != _MERGE]  # first: one may name itself
    seen = {str(key.value) for key, _ in node.value}
    inherited = []
    sources = (value.value if isinstance(value, yaml.SequenceNode) else [value] for value in merged)
    for source in chain.from_iterable(sources):
        if not isinstance(source, yaml.MappingNode):
            raise ValueError(f"line {source.start_mark.line + 1}: << names what is not a mapping")
        flatten(source)
        inherited += [(key, value) for key, value in source.value if str(key.value) not in seen]
        seen.update(str(key.value) for key, _ in source.value)
    node.value = [*inherited, *node.value]


def scalar(node: yaml.Node) -> str | int | float | bool | None:
    """Return a node's plain value. Raises ValueError, saying the line, if it is none."""
    kind = node.tag.removeprefix(_TAG)
    if isinstance(node, yaml.ScalarNode):
        match kind:
            case "str":
                return str(node.value)
            case "null":
                return None
            case "bool" if node.value.lower() in _TRUTH:
                return _TRUTH[node.value.lower()]
            case "int":
                return int(node.value)
            case "float":
                return float(node.value)
    raise ValueError(f"line {node.start_mark.line + 1}: {kind} is not a plain value")


def name(node: yaml.Node) -> str:
    """Return a key as it is written. Raises ValueError, saying the line, if it is not plain text."""
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"line {node.start_mark.line + 1}: a key that is not plain text")
    return str(node.value)


def read(node: yaml.Node | None) -> Any:
    """Return a node as mappings, lists and plain values; of a key written twice the last counts.

    Raises ValueError or RecursionError for what is no such document, or more than one can hold.
    """
    return None if node is None else _Reader().value(node)


class _Reader:
    def __init__(self) -> None:
        self._left = MOST_VALUES

    def value(self, node: yaml.Node) -> object:
        self._left -= 1
        if self._left < 0:
            raise ValueError("more values than a document can have, aliases written out")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            flatten(node)
            return {name(key): self.value(value) for key, value in node.value}
        return scalar(node)
