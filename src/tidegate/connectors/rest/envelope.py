"""A reply taken apart at the declared paths without building its records: the records stay the source's own text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from tidegate.connectors.http import Reply, ReplyRules, read_json
from tidegate.domain.cursor import Path
from tidegate.domain.errors import ContractBroken

ABSENT = msgspec.Raw(b"")
Attributes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Envelope:
    """One reply: ``records`` is the text of a JSON array, ``values`` the JSON texts at the other paths, b"" if absent."""

    records: bytes
    values: dict[Path, bytes]

    @property
    def empty(self) -> bool:
        """Return whether there is no record in it."""
        return self.records[1:-1].isspace() or len(self.records) == 2

    def text(self, path: Path) -> str | None:
        """Return the text or number at ``path`` as written, None if it is absent, null or empty."""
        return scalar_text(self.values[path], path)

    def flag(self, path: Path) -> bool:
        """Return the truth value at ``path``; raises ContractBroken if the reply does not say."""
        raw = self.values[path]
        if raw not in (b"true", b"false"):
            raise ContractBroken(
                f"{'.'.join(path)} should be true or false and is {_shown(raw)}.",
                remedy="Correct `has_more:` in the declaration, or leave it out.",
            )
        return raw == b"true"

    def number(self, path: Path) -> int:
        """Return the whole number at ``path``; raises ContractBroken if the reply does not say."""
        return whole_number(self.text(path), ".".join(path))


def whole_number(text: str | None, where: str) -> int:
    """Return ``text`` as a whole number; raises ContractBroken naming ``where`` it stands."""
    if text is None or not text.isdecimal() or not text.isascii():
        raise ContractBroken(
            f"{where} should be a whole number and is {text!r}.",
            remedy="Correct where the pager's total stands in the declaration, or leave it out.",
        )
    return int(text)


def scalar_text(raw: bytes, path: Path) -> str | None:
    """Return a JSON text or number as plain text; numbers digit by digit, however long. None for nothing."""
    if raw in (b"", b"null"):
        return None
    if raw[:1] == b'"':
        return msgspec.json.decode(raw, type=str) or None
    if raw[:1] in (b"[", b"{"):
        raise ContractBroken(f"{'.'.join(path)} should be a plain value and is {_shown(raw)}.")
    return raw.decode("ascii")


def _shown(raw: bytes) -> str:
    return repr(raw[:40].decode("utf-8", "replace")) if raw else "missing"


class EnvelopeReader:
    """Reads replies of one stream. ``records`` must be there; ``others`` may be absent.

    ``inside``: the member of each element that is the record, "" if the element itself is.
    """

    def __init__(self, records: Path, others: Iterable[Path], inside: str = "") -> None:
        self._inside = _element(inside) if inside else None
        self._name = ".".join(records) or "the reply"
        self._others = tuple(dict.fromkeys(others))
        self._decoder: msgspec.json.Decoder[object]
        if records:
            shape, attributes = _shape((records, *self._others), required=records)
            self._decoder = msgspec.json.Decoder(shape)
            self._records: Attributes = attributes[records]
            self._values = {path: attributes[path] for path in self._others}
        else:
            self._decoder = msgspec.json.Decoder(msgspec.Raw)
            self._records, self._values = (), {}

    def read(self, reply: Reply, rules: ReplyRules) -> Envelope:
        """Return the reply's parts; raises SourceUnavailable or ContractBroken as `read_json` does."""
        root = read_json(reply, self._decoder, rules)
        records = _walk(root, self._records).strip()
        if records[:1] != b"[":
            raise ContractBroken(
                f"{self._name} should be a list of records and is {rules.mask(_shown(records))}.",
                remedy="Correct `records:` in the declaration.",
                response=rules.excerpt(reply.body),
            )
        if self._inside is not None:
            records = _inner(self._inside, records, self._name, rules)
        return Envelope(records, {path: _walk(root, attributes) for path, attributes in self._values.items()})


def _element(inside: str) -> msgspec.json.Decoder[list[object]]:
    """Return a decoder of a list whose elements hold a record at ``inside``."""
    element = msgspec.defstruct("Element", [("record", msgspec.Raw, msgspec.Raw(b"null"))], rename={"record": inside})
    return msgspec.json.Decoder(list[element | None])  # type: ignore[valid-type]


def _inner(decoder: msgspec.json.Decoder[list[object]], elements: bytes, name: str, rules: ReplyRules) -> bytes:
    """Return the elements' records as a JSON array; an element without one is null, which a destination quarantines."""
    try:
        found = decoder.decode(elements)
    except msgspec.ValidationError as error:
        raise ContractBroken(
            f"The elements of {name} have another shape than declared: {error}.", response=rules.excerpt(elements)
        ) from error
    return b"[" + b",".join(bytes(getattr(element, "record", b"null")) for element in found) + b"]"


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
