"""A YAML mapping read key by key, so that every mistake names its dotted path, its line and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

import yaml

from tidegate.domain import plain_yaml
from tidegate.domain.duration import LONGEST
from tidegate.domain.errors import InvalidInput

Choice = TypeVar("Choice", bound=StrEnum)
Scalar = str | int | float | bool | None


class Section:
    """One mapping of a YAML document. Read what you know with the typed methods, then call `finish`.

    All methods raise InvalidInput whose ``field`` is the dotted path from the document's root.
    """

    def __init__(self, node: yaml.Node, path: str) -> None:
        self.path = path
        self._nodes: dict[str, yaml.Node] = {}
        self._read: set[str] = set()
        if not isinstance(node, yaml.MappingNode):
            raise _invalid(path or "document", node, "is not a mapping", "Write `key: value` lines here.")
        self._refuse_doubles(node)
        try:
            plain_yaml.flatten(node)
        except ValueError as error:
            raise InvalidInput(path or "document", "<<", str(error), "Name a mapping by its anchor.") from None
        self._nodes = {_name(key, path): value for key, value in node.value}

    def _refuse_doubles(self, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise _invalid(self.field(key), key_node, "is written twice", "Keep one of the two.")
            seen.add(key)

    @classmethod
    def parse(cls, text: str) -> Section:
        """Return the document's root mapping; raises InvalidInput for text that is not YAML."""
        try:
            node = plain_yaml.compose(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise InvalidInput("document", str(error), "is not YAML", "Correct the syntax at that line.") from error
        if node is None:
            raise InvalidInput("document", "", "is empty", "Start with `name:` and `base_url:`.")
        return cls(node, "")

    def field(self, key: str) -> str:
        """Return the dotted path of ``key`` from the document's root."""
        return f"{self.path}.{key}" if self.path else key

    def __contains__(self, key: str) -> bool:
        return key in self._nodes

    def __iter__(self) -> Iterator[str]:
        """Yield the keys in the document's order."""
        return iter(self._nodes)

    def refuse(self, key: str, problem: str, remedy: str) -> InvalidInput:
        """Return the error that says what is wrong with the value of ``key``."""
        node = self._nodes.get(key)
        if node is None:
            return InvalidInput(self.field(key), None, problem, remedy)
        return _invalid(self.field(key), node, problem, remedy)

    def refuse_line(self, key: str, line: int, problem: str, remedy: str) -> InvalidInput:
        """Return the error that says what is wrong with the ``line``-th line, from 1, of the text of ``key``."""
        node = self._nodes[key]
        lines = str(node.value).splitlines()
        shown = lines[line - 1].strip() if line <= len(lines) else ""
        block = isinstance(node, yaml.ScalarNode) and node.style == "|"
        at = f"line {node.start_mark.line + 1 + line}" if block else f"line {node.start_mark.line + 1}, its line {line}"
        return InvalidInput(self.field(key), shown, f"({at}) {problem}", remedy)

    def _take(self, key: str) -> yaml.Node | None:
        self._read.add(key)
        return self._nodes.get(key)

    def _required(self, key: str) -> InvalidInput:
        return self.refuse(key, "is missing", f"Add `{key}:` under {self.path or 'the document'}.")

    def scalar(self, key: str) -> Scalar:
        """Return the plain value of ``key``, None if absent or null."""
        node = self._take(key)
        return None if node is None else _scalar(node, self.field(key))

    def text(self, key: str, default: str | None = None) -> str:
        """Return the text of ``key``; required where no default is given."""
        value = self.scalar(key)
        if value is None:
            if default is None:
                raise self._required(key)
            return default
        if not isinstance(value, str):
            raise self.refuse(key, "is not text", "Put it in quotes.")
        return value

    def optional_text(self, key: str) -> str | None:
        """Return the text of ``key``, None if absent."""
        return self.text(key, "") or None

    def flag(self, key: str, default: bool) -> bool:
        """Return the truth value of ``key``."""
        value = self.scalar(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(key, "is neither true nor false", "Write true or false, without quotes.")
        return value

    def number(self, key: str, default: float | None = None, *, least: float = 0.0) -> float:
        """Return the number of ``key``, ``least`` or more; required where no default is given."""
        value = self.scalar(key)
        if value is None:
            if default is None:
                raise self._required(key)
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse(key, "is not a number", "Write a number without quotes or unit.")
        if not least <= value < float("inf"):
            raise self.refuse(key, f"is not {least:g} or more", f"Write a number of {least:g} or more.")
        return value

    def integer(self, key: str, default: int | None = None, *, least: int = 0) -> int:
        """Return the whole number of ``key``, ``least`` or more, that PostgreSQL's ``integer`` can hold."""
        value = self.number(key, default, least=least)
        if value != int(value):
            raise self.refuse(key, "is not a whole number", "Write it without a fraction.")
        if value >= 2**31:
            raise self.refuse(key, "is too large", "Write a smaller number.")
        return int(value)

    def seconds(self, key: str, default: float = 0.0, *, least: float = 0.0) -> timedelta:
        """Return the duration whose seconds ``key`` gives, ``least`` or more and no more than a hundred years."""
        value = self.number(key, default, least=least)
        if value > LONGEST.total_seconds():
            raise self.refuse(key, "is more than a hundred years", "Write fewer seconds.")
        return timedelta(seconds=value)

    def choice(self, key: str, kind: type[Choice], default: Choice | None = None) -> Choice:
        """Return the member of ``kind`` that ``key`` names."""
        text = self.text(key, None if default is None else default.value)
        try:
            return kind(text)
        except ValueError:
            raise self.refuse(key, "is unknown", suggest(text, [member.value for member in kind])) from None

    def section(self, key: str) -> Section | None:
        """Return the mapping under ``key``, None if absent."""
        node = self._take(key)
        return None if node is None else Section(node, self.field(key))

    def required_section(self, key: str) -> Section:
        """Return the mapping under ``key``."""
        section = self.section(key)
        if section is None:
            raise self._required(key)
        return section

    def sections(self, key: str) -> Iterator[tuple[str, Section]]:
        """Yield the named mappings under ``key``, which is a mapping of mappings."""
        section = self.required_section(key)
        for name in section:
            yield name, section.required_section(name)

    def values(self, key: str) -> dict[str, str | int | float | bool]:
        """Return the mapping of names to plain values under ``key``, empty if absent; no value means empty text."""
        section = self.section(key)
        if section is None:
            return {}
        read = {name: section.scalar(name) for name in section}
        return {name: "" if value is None else value for name, value in read.items()}

    def tree(self, key: str) -> Mapping[str, Any] | None:
        """Return the mapping under ``key`` with all that it holds, None if absent: a document of the platform's form."""
        node = self._take(key)
        if node is None:
            return None
        if not isinstance(node, yaml.MappingNode):
            raise self.refuse(key, "is not a mapping", "Write the document's members here.")
        try:
            made: Mapping[str, Any] = plain_yaml.read(node)
        except (ValueError, RecursionError) as error:
            raise self.refuse(key, f"cannot be read ({error})", "Write mappings, lists and plain values.") from None
        return made

    def is_mapping(self, key: str) -> bool:
        """Return whether the value of ``key`` is a mapping."""
        return isinstance(self._nodes.get(key), yaml.MappingNode)

    def items(self, key: str) -> tuple[Scalar, ...]:
        """Return the list of plain values under ``key``; one plain value is a list of one, absent is empty."""
        node = self._take(key)
        if node is None:
            return ()
        if isinstance(node, yaml.SequenceNode):
            return tuple(_scalar(item, self.field(key)) for item in node.value)
        return (_scalar(node, self.field(key)),)

    def statuses(self, key: str) -> frozenset[int]:
        """Return the set of HTTP statuses under ``key``."""
        items = self.items(key)
        for item in items:
            if isinstance(item, bool) or not isinstance(item, int) or not 100 <= item <= 599:
                raise self.refuse(key, "is not a list of HTTP statuses", "Write numbers such as [409, 420].")
        return frozenset(item for item in items if isinstance(item, int))

    def finish(self) -> None:
        """Raise InvalidInput for the first key that nothing has read, naming the nearest one that exists."""
        for key in self._nodes:
            if key not in self._read:
                raise self.refuse(key, "is not a key that exists here", suggest(key, sorted(self._read)))


def suggest(word: str, known: Iterable[str]) -> str:
    """Return the remedy for an unknown ``word``: the nearest known one first, else all of them."""
    names = list(known)
    nearest = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if nearest:
        return f"Did you mean {nearest[0]!r}? Known are: {', '.join(names)}."
    return f"Known are: {', '.join(names)}."


def _name(node: yaml.Node, field: str) -> str:
    try:
        return plain_yaml.name(node)
    except ValueError:
        raise _invalid(field, node, "is not a name", "Write a plain text before the colon.") from None


def _scalar(node: yaml.Node, field: str) -> Scalar:
    try:
        return plain_yaml.scalar(node)
    except ValueError:
        raise _invalid(field, node, "is not a plain value", "Write one text, number or truth value here.") from None


def _invalid(field: str, node: yaml.Node, problem: str, remedy: str) -> InvalidInput:
    shown = node.value if isinstance(node, yaml.ScalarNode) else _outline(node)
    line = node.start_mark.line + 1 if node.start_mark else 0
    return InvalidInput(field, shown, f"(line {line}) {problem}", remedy)


def _outline(node: yaml.Node) -> str:
    """Return what a reader knows a mapping or a list by: its keys, or how long it is."""
    if isinstance(node, yaml.MappingNode):
        return f"{{{', '.join(str(key.value) for key, _ in node.value)}}}"
    return f"[{len(node.value)} items]"
