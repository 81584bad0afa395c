"""A YAML document read part by part: every mistake is collected with its dotted path, file, line and remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tidegate.domain import plain_yaml
from tidegate.domain.errors import InvalidInput

HIDDEN = "(hidden)"


class InvalidConfiguration(InvalidInput):
    """A configuration with mistakes, all of them in ``errors``; nothing was changed."""

    code = "invalid_configuration"

    def __init__(self, errors: Iterable[InvalidInput]) -> None:
        self.errors = tuple(errors)
        count = len(self.errors)
        super().__init__("configuration", count, "mistakes" if count > 1 else "mistake", "Correct it and apply again.")
        self.message = "\n".join(error.message for error in self.errors)

    def as_json(self) -> dict[str, object]:
        """Return the errors as JSON-ready values, each with field, value and remedy."""
        return {
            "code": self.code,
            "message": f"The configuration has {len(self.errors)} mistake{'s' * (len(self.errors) > 1)}.",
            "errors": [error.as_json() for error in self.errors],
        }


@dataclass(frozen=True, slots=True)
class DocumentFile:
    """The text of one file; relative paths in it are meant from ``folder``."""

    name: str
    text: str
    folder: Path


@dataclass(slots=True)
class Mistakes:
    """The mistakes found so far."""

    found: list[InvalidInput] = field(default_factory=list)

    def add(self, error: InvalidInput) -> None:
        """Keep a mistake; reading goes on."""
        self.found.append(error)

    def __len__(self) -> int:
        return len(self.found)

    def refuse_any(self) -> None:
        """Raise InvalidConfiguration if there are mistakes."""
        if self.found:
            raise InvalidConfiguration(self.found)


@dataclass(frozen=True, slots=True)
class Part:
    """One mapping of a document. Its methods record a mistake and return something usable instead of raising."""

    file: DocumentFile
    path: str
    values: Mapping[str, object]
    lines: Mapping[str, int]
    mistakes: Mistakes

    def field(self, key: str) -> str:
        """Return the dotted path of ``key``."""
        return f"{self.path}.{key}" if self.path else key

    def refuse(self, key: str, problem: str, remedy: str, *, value: object = None) -> None:
        """Record that the value of ``key`` has a problem; ``value`` is shown instead of it, if given."""
        shown = self.values.get(key) if value is None else value
        self.mistakes.add(InvalidInput(self.field(key), shown, f"({self._where(key)}) {problem}", remedy))

    def refuse_as(self, error: InvalidInput, key: str) -> None:
        """Record an error that was raised about ``key``, or about a field further down."""
        inner = error.field.removeprefix(key).removeprefix(".")
        about = f"{key}.{inner}" if inner else key
        problem = f"({self._where(about, key)}) {error.problem}"
        self.mistakes.add(InvalidInput(self.field(about), error.value, problem, error.remedy))

    def _where(self, *keys: str) -> str:
        """Return file and line of the first of ``keys`` that is written, else of this part."""
        found = [self.lines[self.field(key)] for key in keys if self.field(key) in self.lines]
        return f"{self.file.name}, line {found[0] if found else self.lines.get(self.path, 1)}"

    def require_known(self, *known: str) -> None:
        """Record every key that is not ``known``, with the nearest one that is."""
        for key in self.values:
            if key not in known:
                self.refuse(key, "is not a key that exists here", suggest(key, known))

    def text(self, key: str, default: str | None = None) -> str:
        """Return the text of ``key``, ``default`` if absent; without a default it is required."""
        value = self.values.get(key)
        if value is None:
            if default is None:
                self.refuse(key, "is missing", f"Add `{key}:` under {self.path}.")
            return default or ""
        if not isinstance(value, str) or not value:
            self.refuse(key, "is not text", "Write it in quotes.")
            return default or ""
        return value

    def flag(self, key: str) -> bool | None:
        """Return the truth value of ``key``, None if absent."""
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return value
        self.refuse(key, "is neither true nor false", "Write true or false, without quotes.")
        return None

    def number(self, key: str) -> float | None:
        """Return the number above 0 of ``key``, None if absent."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0.001 <= value <= 1_000_000:
            return float(value)
        self.refuse(key, "is not a number between 0.001 and 1,000,000", "Write one such as 2 or 0.5.")
        return None

    def whole(self, key: str, default: int) -> int:
        """Return the whole number of ``key``, 1 or more; ``default``, whatever it is, if absent."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31:
            return value
        remedy = f"Leave it out for {default}." if default else "Leave it out for the default."
        self.refuse(key, "is not a whole number of 1 or more", remedy)
        return default

    def names(self, key: str) -> tuple[str, ...] | None:
        """Return the list of names under ``key``, None if absent; an empty list and a name twice are mistakes."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            self.refuse(key, "is not a list of names", "Write one such as [orders, customers].")
            return ()
        if len(set(value)) < len(value):
            self.refuse(key, "names one twice", "Name each once.")
        return tuple(dict.fromkeys(value))

    def part(self, key: str) -> Part:
        """Return the mapping under ``key``, empty if absent."""
        value = self.values.get(key)
        if not isinstance(value, Mapping):
            if value is not None:
                self.refuse(key, "is not a mapping", "Write `name: value` lines under it.")
            value = {}
        return Part(self.file, self.field(key), value, self.lines, self.mistakes)

    def names_under(self, key: str) -> list[str]:
        """Return the names in the mapping under ``key``, whatever is behind them."""
        value = self.values.get(key)
        return list(value) if isinstance(value, Mapping) else []

    def parts(self, key: str) -> Iterator[tuple[str, Part]]:
        """Yield the named mappings under ``key``; a name that could not be typed or shown is a mistake."""
        under = self.part(key)
        for name in under.values:
            if not name or "/" in name or not name.isprintable() or name != name.strip() or len(name) > 200:
                under.refuse(
                    name, "is not usable as a name", "Use up to 200 visible characters without '/'.", value=name
                )
            elif under.values[name] is None:
                under.refuse(name, "is empty", "Write what belongs to it, or remove it.")
            else:
                yield name, under.part(name)


def suggest(word: str, known: Iterable[str]) -> str:
    """Return the remedy for an unknown ``word``: the nearest known one, and all there are if they are few."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1)
    listed = f"Known are: {', '.join(names[:20])}{', …' * (len(names) > 20)}." if names else "There is none."
    return f"Did you mean {near[0]!r}? {listed}" if near else listed


def variable_name(text: str) -> str:
    """Return the name of an environment variable that ``${NAME}`` can refer to, made of ``text``.

    >>> variable_name("2nd-shop_token")
    '_2ND_SHOP_TOKEN'
    """
    name = re.sub(r"[^A-Za-z0-9_]", "_", text).upper()
    return f"_{name}" if name[:1].isdigit() else name


def open_document(file: DocumentFile, mistakes: Mistakes) -> Part:
    """Return the root mapping of a file; text that is not YAML, and a key written twice, are recorded as mistakes."""
    lines: dict[str, int] = {}
    values: object = {}
    try:
        node = plain_yaml.compose(file.text)
        if node is not None:
            values = _Reader(file, lines, mistakes).value(node, "")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = f"is not YAML: {' '.join(str(error).split())}"
        mistakes.add(InvalidInput("file", file.name, problem, "Correct the syntax there."))
    if not isinstance(values, Mapping):
        mistakes.add(InvalidInput("file", file.name, "is not a mapping", "Start with `destinations:` or `tenants:`."))
        values = {}
    return Part(file, "", values, lines, mistakes)


class _Reader:
    """Turns YAML nodes into plain values and notes the line of each."""

    def __init__(self, file: DocumentFile, lines: dict[str, int], mistakes: Mistakes) -> None:
        self._file, self._lines, self._mistakes = file, lines, mistakes
        self._left = plain_yaml.MOST_VALUES

    def value(self, node: yaml.Node, path: str) -> object:
        self._left -= 1
        if self._left < 0:
            raise ValueError("more values than a configuration can have, aliases written out")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{path}.{index}") for index, item in enumerate(node.value)]
        value = plain_yaml.scalar(node)
        if isinstance(value, str):
            self._refuse_nul(value, node, path)
        return value

    def _refuse_nul(self, text: str, node: yaml.Node, path: str) -> None:
        if "\x00" in text:
            problem = (
                f"({self._file.name}, line {node.start_mark.line + 1}) holds a NUL character, which PostgreSQL cannot"
            )
            self._mistakes.add(InvalidInput(path, text, problem, "Leave it out."))

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, object]:
        self._refuse_doubles(node, path)
        plain_yaml.flatten(node)
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            name = plain_yaml.name(key_node) if isinstance(key_node, yaml.ScalarNode) else ""
            inner = f"{path}.{name}" if path else name
            self._refuse_nul(name, key_node, inner)
            self._lines[inner] = key_node.start_mark.line + 1
            values[name] = self.value(value_node, inner)
        return values

    def _refuse_doubles(self, node: yaml.MappingNode, path: str) -> None:
        seen: set[str] = set()
        for key_node, _ in node.value:
            name = str(key_node.value)
            if name in seen:
                where = f"({self._file.name}, line {key_node.start_mark.line + 1})"
                field_path = f"{path}.{name}" if path else name
                self._mistakes.add(InvalidInput(field_path, name, f"{where} is written twice", "Keep one of the two."))
            seen.add(name)
