"""A reply taken apart at the declared paths without building its records: the records stay the source's own text.

A value that no strict decoder takes (NaN, half of a surrogate pair, a control character, any depth of nesting) does not cost
the page it stands on: the reply is then taken apart with care, and the record goes its way to quarantine (SPEC 4).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from tidegate.connectors import json_parts
from tidegate.connectors.http import Reply, ReplyRules, another_shape, require_json
from tidegate.connectors.rest.declaration import EmptyForm, InHeader, Place, place_text
from tidegate.domain.cursor import Path
from tidegate.domain.errors import ContractBroken

NO_CONTENT = 204
ABSENT = msgspec.Raw(b"")
Attributes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Envelope:
    """One reply: ``records`` is the text of a JSON array, ``values`` the JSON texts at the other places, b"" if absent.

    ``ended``: the source has said with the whole reply that there is nothing more; then it says nothing else.
    """

    records: bytes
    values: dict[Place, bytes]
    ended: bool = False

    @property
    def empty(self) -> bool:
        """Return whether there is no record in it."""
        return self.records[1:-1].isspace() or len(self.records) == 2

    def text(self, path: Place) -> str | None:
        """Return the text or number at ``path`` as written, None if it is absent, null or empty."""
        return scalar_text(self.values[path], path)

    def flag(self, path: Place) -> bool:
        """Return the truth value at ``path``; raises ContractBroken if the reply does not say."""
        raw = b"false" if self.ended else self.values[path]
        if raw not in (b"true", b"false"):
            raise ContractBroken(
                f"{place_text(path)} should be true or false and is {_shown(raw)}.",
                remedy="Correct `has_more:` in the declaration, or leave it out.",
            )
        return raw == b"true"

    def number(self, path: Place) -> int:
        """Return the whole number at ``path``; raises ContractBroken if the reply does not say."""
        return 0 if self.ended else whole_number(self.text(path), place_text(path))


def whole_number(text: str | None, where: str) -> int:
    """Return ``text`` as a whole number; raises ContractBroken naming ``where`` it stands."""
    if text is None or not text.isdecimal() or not text.isascii():
        raise ContractBroken(
            f"{where} should be a whole number and is {text!r}.",
            remedy="Correct where the pager's total stands in the declaration, or leave it out.",
        )
    return int(text)


def scalar_text(raw: bytes, path: Place) -> str | None:
    """Return a JSON text or number as plain text; numbers digit by digit, however long. None for nothing."""
    if raw in (b"", b"null"):
        return None
    try:
        if raw[:1] == b'"':
            return msgspec.json.decode(raw, type=str) or None
        if raw[:1] not in (b"[", b"{"):
            return raw.decode("ascii")
    except ValueError:  # no UTF-8, or half of a surrogate pair
        raise ContractBroken(f"{place_text(path)} is no text that could be sent back: {_shown(raw)}.") from None
    raise ContractBroken(f"{place_text(path)} should be a plain value and is {_shown(raw)}.")


def _of_header(value: str | None) -> bytes:
    """Return a header's value as JSON text: true and false as such, all else as a text."""
    if value is None:
        return b""
    return value.lower().encode() if value.lower() in ("true", "false") else json.dumps(value).encode()


def _shown(raw: bytes) -> str:
    return repr(raw[:40].decode("utf-8", "replace")) if raw else "missing"


class EnvelopeReader:
    """Reads replies of one stream. ``records`` must be there; ``others`` may be absent.

    ``inside``: the member of each element that is the record, "" if the element itself is. ``empty``: what stands for an
    empty list.
    """

    def __init__(
        self, records: Path, others: Iterable[Place], inside: str = "", empty: frozenset[EmptyForm] = frozenset()
    ) -> None:
        self._empty = empty
        self._inside, self._element = inside, _element(inside)
        self._name = ".".join(records) or "the reply"
        self._path, self._others = records, tuple(dict.fromkeys(others))
        self._paths = tuple(place for place in self._others if not isinstance(place, InHeader))
        self._headers = tuple(place for place in self._others if isinstance(place, InHeader))
        self._decoder: msgspec.json.Decoder[object]
        if records:
            shape, attributes = _shape((records, *self._paths), required=() if EmptyForm.ABSENT in empty else records)
            self._decoder = msgspec.json.Decoder(shape)
            self._records: Attributes = attributes[records]
            self._values = {path: attributes[path] for path in self._paths}
        else:
            self._decoder = msgspec.json.Decoder(msgspec.Raw)
            self._records, self._values = (), {}

    def read(self, reply: Reply, rules: ReplyRules) -> Envelope:
        """Return the reply's parts; raises SourceUnavailable or ContractBroken as `read_json` does."""
        if reply.status == NO_CONTENT:
            return self._without_content()
        try:
            root = self._decoder.decode(reply.body)
        except msgspec.ValidationError as error:
            raise another_shape(reply, error, rules) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            require_json(reply, rules)
            return self._checked(reply, rules, *self._carefully(reply, rules))
        values = {path: _walk(root, attributes) for path, attributes in self._values.items()}
        return self._checked(reply, rules, _walk(root, self._records).strip(), values)

    def ended(self) -> Envelope:
        """Return what stands for a reply that says nothing but that there is nothing more."""
        return Envelope(b"[]", dict.fromkeys(self._others, b""), ended=True)

    def _without_content(self) -> Envelope:
        if EmptyForm.NO_CONTENT not in self._empty:
            raise ContractBroken(
                f"The source answered {NO_CONTENT}, no content, instead of a list of records.",
                remedy="If that is its empty list, declare `empty: no_content`.",
            )
        return self.ended()

    def _is_empty(self, records: bytes) -> bool:
        return (records == b"null" and EmptyForm.NULL in self._empty) or (
            records == b"" and EmptyForm.ABSENT in self._empty
        )

    def _carefully(self, reply: Reply, rules: ReplyRules) -> tuple[bytes, dict[Path, bytes]]:
        """Return the same parts of a reply that no decoder takes whole."""
        try:
            found = _members_at(reply.body, (self._path, *self._paths))
        except ValueError as error:
            raise another_shape(reply, error, rules) from error
        return found[self._path], {path: found[path] for path in self._paths}

    def _checked(self, reply: Reply, rules: ReplyRules, records: bytes, values: dict[Path, bytes]) -> Envelope:
        if self._is_empty(records):
            records = b"[]"
        if records[:1] != b"[":
            raise ContractBroken(
                f"{self._name} should be a list of records and is {rules.mask(_shown(records))}.",
                remedy="Correct `records:` in the declaration, or declare under `empty:` what stands for an empty list.",
                response=rules.excerpt(reply.body),
            )
        if self._inside:
            records = _inner(self._element, self._inside, records, self._name, rules)
        said: dict[Place, bytes] = {place: _of_header(reply.headers.get(place.name)) for place in self._headers}
        said.update((path, text) for path, text in values.items())
        return Envelope(records, said)


def _element(inside: str) -> msgspec.json.Decoder[list[object]]:
    """Return a decoder of a list whose elements hold a record at ``inside``."""
    element = msgspec.defstruct("Element", [("record", msgspec.Raw, msgspec.Raw(b"null"))], rename={"record": inside})
    return msgspec.json.Decoder(list[element | None])  # type: ignore[valid-type]


def _inner(
    decoder: msgspec.json.Decoder[list[object]], inside: str, elements: bytes, name: str, rules: ReplyRules
) -> bytes:
    """Return the elements' records as a JSON array; an element without one is null, which a destination quarantines."""
    try:
        found = [bytes(getattr(element, "record", b"null")) for element in decoder.decode(elements)]
    except msgspec.ValidationError as error:
        raise ContractBroken(
            f"The elements of {name} have another shape than declared: {error}.", response=rules.excerpt(elements)
        ) from error
    except (msgspec.DecodeError, RecursionError):
        found = [_member(bytes(element), inside) for element in json_parts.elements(elements)]
    return b"[" + b",".join(found) + b"]"


def _member(element: bytes, inside: str) -> bytes:
    """Return the record in an element; an element that cannot be read is its own record, for the quarantine."""
    try:
        return bytes(json_parts.members(element).get(inside, b"null"))
    except ValueError:
        return element


def _members_at(text: bytes, paths: Iterable[Path]) -> dict[Path, bytes]:
    """Return the JSON texts at ``paths``, b"" where nothing is. Raises ValueError for a value on the way that is no object."""
    found: dict[Path, bytes] = {(): text.strip()}
    opened: dict[Path, dict[str, msgspec.Raw]] = {}
    for path in paths:
        for depth in range(len(path)):
            outer, inner = path[:depth], path[: depth + 1]
            if found[outer] not in (b"", b"null") and outer not in opened:
                opened[outer] = json_parts.members(found[outer])
            found[inner] = bytes(opened.get(outer, {}).get(inner[-1], b""))
    return found


def _walk(value: object, attributes: Attributes) -> bytes:
    for attribute in attributes:
        if value is None:
            return b""
        value = getattr(value, attribute)
    return b"" if value is None else bytes(value)  # type: ignore[call-overload]


def _shape(paths: Iterable[Path], required: Path = ()) -> tuple[type, dict[Path, Attributes]]:
    """Return a type that decodes just the values at ``paths``, and the attributes that lead to each."""
    children: dict[str, list[Path]] = {}
    for path in paths:
        children.setdefault(path[0], []).append(path[1:])
    fields: list[tuple[str, object] | tuple[str, object, object]] = []
    attributes: dict[Path, Attributes] = {}
    for number, (name, rests) in enumerate(children.items()):
        attribute, needed = f"f{number}", required[:1] == (name,)
        kind: object = msgspec.Raw
        default: object = ABSENT
        if rests == [()]:
            attributes[(name,)] = (attribute,)
        else:
            inner, inside = _shape(rests, required[1:] if needed else ())
            attributes |= {(name, *path): (attribute, *rest) for path, rest in inside.items()}
            kind, default = (inner if needed else inner | None), None
        fields.append((attribute, kind) if needed else (attribute, kind, default))
    renames = {f"f{number}": name for number, name in enumerate(children)}
    return msgspec.defstruct("Shape", fields, kw_only=True, rename=renames), attributes
