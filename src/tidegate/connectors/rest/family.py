"""Parents and children as records: what stands in a parent, what each child carries of it, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from tidegate.connectors import json_parts
from tidegate.connectors.rest.declaration import ParentDeclaration
from tidegate.domain.cursor import Path
from tidegate.domain.errors import ContractBroken


class Parent(msgspec.Struct, frozen=True):
    """One parent whose children are to be asked for: the JSON texts of its fields by dotted path."""

    texts: dict[str, str]


@dataclass(slots=True)
class Found:
    """What one page of parents holds: ``children`` as JSON texts, parents ``to_ask``, and what is missing of them."""

    children: list[bytes] = field(default_factory=list)
    to_ask: tuple[Parent, ...] = ()
    shortfall: str = ""

    def records(self) -> bytes:
        """Return the children as a JSON array."""
        return b"[" + b",".join(self.children) + b"]"


class Family:
    """The rule by which one child stream's records belong to its parents'.

    ``wanted``: fields of the parent that asking for its children needs. ``can_ask``: whether they can be asked for.
    """

    def __init__(self, declared: ParentDeclaration, wanted: Iterable[Path], *, can_ask: bool) -> None:
        self._declared = declared
        self._carried = [(msgspec.json.encode(declared.name_of(path)), ".".join(path)) for path in declared.fields]
        self._needed = dict.fromkeys((*declared.fields, *wanted))
        self._wanted = tuple(wanted)
        self._can_ask = can_ask

    def split(self, records: bytes) -> Found:
        """Return the children that stand in the parents ``records``, a JSON array, and the parents to ask for theirs."""
        found = Found()
        to_ask: list[Parent] = []
        cut_off = 0
        for raw in json_parts.elements(records):
            record = _members(raw)
            texts = {".".join(path): text for path in self._needed if (text := _text(record, path))}
            parent = Parent(texts)
            items = self._items(record)
            if items is not None:
                found.children += self._children(items, parent)
            elif self.can_ask_for(parent):
                to_ask.append(parent)
            elif self._can_ask:  # nothing to ask by: the destination quarantines it, for want of a key
                found.children.append(msgspec.json.encode({self._declared.stream: raw}))
            else:
                cut_off += 1
        found.to_ask = tuple(to_ask)
        if cut_off:
            where = ".".join(self._declared.each or ())
            found.shortfall = f"{cut_off} of {self._declared.stream} do not hold their whole list of {where}"
        return found

    def can_ask_for(self, parent: Parent) -> bool:
        """Return whether ``parent``'s children can be asked for by what is known of it."""
        return self._can_ask and all(".".join(path) in parent.texts for path in self._wanted)

    def _items(self, record: Mapping[str, msgspec.Raw]) -> list[msgspec.Raw] | None:
        """Return the children in a parent's record, None unless it surely holds them all."""
        declared = self._declared
        if declared.each is None:
            return None
        listed = _at(record, declared.each, or_null=True)
        none = listed == b"null" or (not listed and declared.optional)
        if none and (declared.has_more is None or not _at(record, declared.has_more)):
            return []
        if listed[:1] != b"[" or (declared.has_more is not None and _at(record, declared.has_more) != b"false"):
            return None
        items = json_parts.elements(listed)
        return None if declared.at_most is not None and len(items) >= declared.at_most else items

    def adopted(self, records: bytes, parent: Parent) -> bytes:
        """Return the children ``records`` that were asked for, each with what it carries of its ``parent``."""
        return b"[" + b",".join(self._children(json_parts.elements(records), parent)) + b"]"

    def _children(self, items: Iterable[msgspec.Raw], parent: Parent) -> Iterator[bytes]:
        """Yield children with their parent's fields in front; what is no object stays as it is, for the quarantine."""
        carried = b",".join(
            name + b":" + parent.texts[dotted].encode() for name, dotted in self._carried if dotted in parent.texts
        )
        for item in map(bytes, items):
            if not item.startswith(b"{") or not carried:
                yield item
                continue
            if any(name in item for name, _ in self._carried):
                self._require_free(item)
            inner = item[1:].lstrip()
            yield b"{" + carried + (inner if inner.startswith(b"}") else b"," + inner)

    def _require_free(self, item: bytes) -> None:
        """Raise ContractBroken if a member of ``item`` itself, not of something in it, has the name of a carried field."""
        for written, _ in self._carried:
            name = msgspec.json.decode(written, type=str)
            if name in _members(msgspec.Raw(item)):
                raise ContractBroken(
                    f"A record has a field {name!r} of its own, which would hide its parent's.",
                    remedy="Declare another `prefix:` under `parent:`.",
                )


def _members(raw: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the members of a record, none of what is no object, or cannot be read: that is for the quarantine."""
    try:
        return json_parts.members(raw) if bytes(raw).startswith(b"{") else {}
    except ValueError:
        return {}


def _text(record: Mapping[str, msgspec.Raw], path: Path) -> str:
    """Return the JSON text at ``path`` for a page token, "" for nothing, or for what no token could hold."""
    try:
        return _at(record, path).decode()
    except UnicodeDecodeError:
        return ""


def _at(record: Mapping[str, msgspec.Raw], path: Path, *, or_null: bool = False) -> bytes:
    """Return the JSON text at ``path``, b"" for nothing; null is nothing too unless ``or_null``."""
    inner: Mapping[str, msgspec.Raw] = record
    for name in path[:-1]:
        inner = _members(inner.get(name, msgspec.Raw(b"null")))
    text = bytes(inner.get(path[-1], json_parts.NOTHING))
    return text if or_null or text != b"null" else b""
