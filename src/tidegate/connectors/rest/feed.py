"""A change feed: what one listing of it begins with, ends with, and shows as deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from tidegate.connectors import json_parts
from tidegate.connectors.rest.declaration import ChangesDeclaration, Place, at_place
from tidegate.connectors.rest.envelope import Envelope
from tidegate.domain.errors import ContractBroken
from tidegate.domain.fetch import FetchReport

EXPIRED_REMARK = "change token expired: listed in full, deletions before it unseen"
_TRUE = msgspec.Raw(b"true")


class Feed:
    """The rule of one stream's change feed. ``key``: the fields by which a deletion may name its record."""

    def __init__(self, declared: ChangesDeclaration, key: tuple[str, ...]) -> None:
        self._declared, self._key = declared, key

    @property
    def paths(self) -> tuple[Place, ...]:
        """Return where in the reply it reads."""
        removed = self._declared.removed
        return (self._declared.token,) if removed is None else (self._declared.token, removed)

    def asks(self, token: str) -> Mapping[str, str]:
        """Return the parameter that asks for changes since ``token``, none for a listing in full."""
        return {self._declared.param: token} if token else {}

    def has_expired(self, error: ContractBroken) -> bool:
        """Return whether ``error`` says that the source does not know the token any more."""
        codes = error.values.get("codes")
        told = isinstance(codes, list) and not self._declared.expired_codes.isdisjoint(codes)
        return told or error.values.get("status") in self._declared.expired

    def ended(self, report: FetchReport, last: Envelope, *, expired: bool) -> FetchReport:
        """Return the report of a listing's ``last`` page, with the token that the next one begins with.

        Raises ContractBroken if the page holds none: without it the next listing would be in full, again and again.
        """
        token = last.text(self._declared.token)
        if token is None:
            raise ContractBroken(
                f"The listing has ended without a change token {at_place(self._declared.token)}.",
                remedy="Correct `changes: {token: …}` in the declaration.",
            )
        remarks = {**report.remarks, EXPIRED_REMARK: 1} if expired else report.remarks
        return replace(report, change_token=token, remarks=remarks)

    def with_removed(self, envelope: Envelope) -> bytes:
        """Return the page's records as a JSON array, what it lists as deleted after them, each with its mark."""
        listed = b"" if self._declared.removed is None else envelope.values[self._declared.removed]
        if listed in (b"", b"null"):
            return envelope.records
        try:
            items = json_parts.elements(listed)
        except ValueError as error:
            where = ".".join(self._declared.removed or ())
            raise ContractBroken(f"{where} should be a list of what is deleted: it {error}.") from error
        removed = [self._removed(item) for item in items]
        inner = envelope.records.strip()[1:-1].strip()
        return b"[" + b",".join(([inner] if inner else []) + removed) + b"]"

    def _removed(self, item: msgspec.Raw) -> bytes:
        """Return a deletion as a record: as the source wrote it, or a bare key as the record's key."""
        if bytes(item).startswith(b"{"):
            try:
                return msgspec.json.encode({**json_parts.members(item), self._declared.mark: _TRUE})
            except ValueError:
                return bytes(item)  # it cannot be read: the destination quarantines it
        if len(self._key) != 1 or "." in self._key[0]:
            return bytes(item)  # no record's key: the destination quarantines it
        return msgspec.json.encode({self._key[0]: item, self._declared.mark: _TRUE})
