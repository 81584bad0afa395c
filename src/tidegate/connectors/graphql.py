"""GraphQL replies: their ``errors``, which come with status 200, and whose fault each is by its code.

What becomes of a reply with ``errors``, whatever data stand beside them:

    a code that asks for fewer requests     RateLimited, with the wait that Retry-After asks for
    a code that refuses the credentials     Unauthorised
    only codes that pass by themselves      SourceUnavailable
    any other, or none                      QueryRefused, showing the errors, secrets masked

Partial data are never taken: what the errors left out would be lost without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from tidegate.connectors import json_parts
from tidegate.connectors.http import Reply, ReplyRules, retry_after_seconds
from tidegate.domain import json_text
from tidegate.domain.errors import ContractBroken, RateLimited, SourceError, SourceUnavailable, Unauthorised


class ErrorExtensions(msgspec.Struct, frozen=True):
    """The machine-readable part of a GraphQL error."""

    code: str | int | None = None


class GraphQLError(msgspec.Struct, frozen=True):
    """One entry of ``errors``. Some servers put the code into ``type``, beside the message."""

    message: str | None = ""
    extensions: ErrorExtensions | None = None
    type: str | int | None = None

    @property
    def code(self) -> str:
        """Return the error's code, "" if it has none."""
        code = self.extensions.code if self.extensions is not None else None
        return str(code if code is not None else self.type or "")


class QueryRefused(ContractBroken):
    """The server could not answer the query, or not all of it."""


class NothingThere(ContractBroken):
    """Null stands where the query asked for something: it is not there, or not any more."""


@dataclass(frozen=True, slots=True)
class ErrorCodes:
    """What the codes of one server's errors mean."""

    retryable: frozenset[str] = frozenset({"INTERNAL_SERVER_ERROR", "SERVICE_UNAVAILABLE", "TIMEOUT"})
    rate_limited: frozenset[str] = frozenset({"THROTTLED", "RATE_LIMITED"})
    unauthorised: frozenset[str] = frozenset({"UNAUTHENTICATED", "FORBIDDEN", "ACCESS_DENIED"})


ABOUT_SCOPE = frozenset({"FORBIDDEN", "ACCESS_DENIED"})
"""Codes that refuse what was asked for, as status 403 does, and not the token it was asked with."""


class _Errors(msgspec.Struct, frozen=True):
    errors: list[GraphQLError] | None = None


_DECODER = msgspec.json.Decoder(_Errors)


def require_no_errors(codes: ErrorCodes, reply: Reply, rules: ReplyRules) -> None:
    """Raise the SourceError that the module's table names, if ``reply`` holds errors.

    A reply that is not JSON passes: whoever reads its data will say so.
    """
    if b'"errors"' not in reply.body:  # most replies need not be read twice
        return
    try:
        errors = _DECODER.decode(reply.body).errors
    except msgspec.ValidationError:  # errors of a form of their own: without codes, and shown as they are
        errors = [GraphQLError("of an unknown form")]
    except (msgspec.DecodeError, RecursionError):  # some value in it is not clean: the errors may be
        errors = _errors_beside(reply.body)
    if errors:
        raise refusal(errors, codes, reply, rules)


def _errors_beside(body: bytes) -> list[GraphQLError] | None:
    """Return the errors of a reply that no decoder takes whole."""
    try:
        json_text.require_structure(body)
        found = json_parts.members(body).get("errors", json_parts.NOTHING)
    except ValueError:
        return None
    try:
        return msgspec.json.decode(bytes(found) or b"null", type=list[GraphQLError] | None)
    except (ValueError, RecursionError):
        return [GraphQLError("of an unknown form")]


def require_there(reply: Reply, path: Sequence[str], rules: ReplyRules) -> None:
    """Raise NothingThere if null stands somewhere on the way to ``path``, which begins with ``data``.

    A reply of any other shape passes: whoever reads its data will say so.
    """
    raw: msgspec.Raw | bytes = reply.body
    for depth, name in enumerate(path):
        try:
            raw = json_parts.members(raw).get(name, json_parts.NOTHING)
        except ValueError:
            return
        if bytes(raw) == b"null":
            raise NothingThere(f"{'.'.join(path[: depth + 1])} is null.", response=rules.excerpt(reply.body))


def refusal(errors: Sequence[GraphQLError], codes: ErrorCodes, reply: Reply, rules: ReplyRules) -> SourceError:
    """Return what ``errors`` come to, by the module's table."""
    found = {error.code for error in errors}
    said = told(errors, rules)
    if found & codes.rate_limited:
        return RateLimited(f"The source asks for fewer queries: {said}", retry_after_seconds=retry_after_seconds(reply))
    excerpt = rules.excerpt(reply.body)
    if found & codes.unauthorised:
        return Unauthorised(
            f"The source denies access: {said}",
            remedy="Renew the connection's credentials or widen their scopes.",
            response=excerpt,
            codes=sorted(found & codes.unauthorised),
        )
    if found <= codes.retryable:
        return SourceUnavailable(f"The query failed: {said}", retry_after_seconds=retry_after_seconds(reply))
    return QueryRefused(
        f"The source did not answer the query: {said}",
        remedy="Compare the declared query with the response shown.",
        response=excerpt,
        codes=sorted(found),
    )


def told(errors: Sequence[GraphQLError], rules: ReplyRules) -> str:
    """Return the errors' messages for people, secrets masked."""
    said = "; ".join(f"{error.message} ({error.code})" if error.code else f"{error.message}" for error in errors)
    return rules.mask(said)[:500]
