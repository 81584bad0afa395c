"""One shop's Admin GraphQL API: sends a query at the right moment and names what went wrong.

What becomes of a reply with ``errors`` (always HTTP 200):

    THROTTLED                          RateLimited, with the wait computed from the bucket
    MAX_COST_EXCEEDED                  TooCostly: the same query for fewer records may pass
    invalid ``after``                  CursorExpired: the listing has to start again
    any other                          as `tidegate.connectors.graphql` says
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import aiohttp
import msgspec

from tidegate.connectors.base import Allowance, Unlimited
from tidegate.connectors.graphql import ErrorCodes, GraphQLError, refusal, told
from tidegate.connectors.http import Reply, ReplyRules, read_json, send
from tidegate.connectors.shopify.pace import Pace, seconds_until_room
from tidegate.connectors.shopify.queries import API_VERSION
from tidegate.connectors.shopify.replies import Extensions, GraphQLReply
from tidegate.domain.clock import Clock
from tidegate.domain.errors import ContractBroken, RateLimited, SourceError

T = TypeVar("T")

_DECODER = msgspec.json.Decoder(GraphQLReply)
_CODES = ErrorCodes()
_LOCKED = 423  # the shop is being moved or repaired


class TooCostly(ContractBroken):
    """The query for this many records may cost more than Shopify lets one query cost."""


class CursorExpired(ContractBroken):
    """Shopify no longer accepts the position the listing was to go on from."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The ``data`` of one reply, and when it was asked and answered, by our clock and by Shopify's."""

    data: msgspec.Raw
    requested_at: datetime
    source_at: datetime | None
    search_warnings: tuple[str, ...]


class AdminAPI:
    """One shop, asked through one session with one access token."""

    def __init__(
        self,
        base_url: str,
        access_token: str,
        session: aiohttp.ClientSession,
        clock: Clock,
        allowance: Allowance | None = None,
    ) -> None:
        self._url = f"{base_url.rstrip('/')}/admin/api/{API_VERSION}/graphql.json"
        self._session = session
        self._clock = clock
        self._rules = ReplyRules(retryable=frozenset({_LOCKED}), secrets=(access_token,))
        self._headers = {
            "X-Shopify-Access-Token": access_token,
            "Content-Type": "application/json",
            "Shopify-Search-Query-Debug": "1",  # without it, terms that Shopify ignores stay unreported
        }
        self._pace = Pace(clock)
        self._allowance = allowance or Unlimited()

    async def ask(self, query: str, variables: Mapping[str, object], size: int) -> Answer:
        """Return the answer to ``query`` for ``size`` records, sent once the bucket has room for it.

        Raises the SourceError that the module's table, or that of `tidegate.connectors.http`, names.
        """
        await self._pace.wait_for_room(query, size)
        await self._allowance.wait()
        requested_at = self._clock.now()
        body = msgspec.json.encode({"query": query, "variables": variables})
        response = await send(self._session, "POST", self._url, headers=self._headers, body=body, rules=self._rules)
        reply = read_json(response, _DECODER, self._rules)
        extensions = reply.extensions or Extensions()
        if extensions.cost is not None:
            self._pace.learn(query, size, extensions.cost)
        if reply.errors:
            raise self._refusal(reply.errors, extensions, response)
        return Answer(reply.data, requested_at, response.source_at, _warnings(extensions))

    def page_size(self, query: str, initial: int) -> int:
        """Return how many records to ask ``query`` for, by what it has cost so far."""
        return self._pace.page_size(query, initial)

    def decode(self, raw: msgspec.Raw, decoder: msgspec.json.Decoder[T]) -> T:
        """Return ``raw`` decoded; raises ContractBroken showing its beginning."""
        try:
            return decoder.decode(raw)
        except msgspec.DecodeError as error:
            raise ContractBroken(
                f"Shopify's reply has another shape than its schema promises: {error}.",
                response=self._rules.excerpt(bytes(raw)),
            ) from error

    def _refusal(self, errors: Sequence[GraphQLError], extensions: Extensions, response: Reply) -> SourceError:
        codes = {error.code for error in errors}
        said = told(errors, self._rules)
        if "THROTTLED" in codes:
            wait = seconds_until_room(extensions.cost) if extensions.cost is not None else None
            return RateLimited(f"Shopify throttled the query: {said}.", retry_after_seconds=wait)
        excerpt = self._rules.excerpt(response.body)
        if "MAX_COST_EXCEEDED" in codes:
            return TooCostly(f"Shopify finds the query too costly: {said}", response=excerpt)
        if "invalid cursor" in said.lower():
            return CursorExpired(f"Shopify does not know the page token any more: {said}", response=excerpt)
        return refusal(errors, _CODES, response, self._rules)


def _warnings(extensions: Extensions) -> tuple[str, ...]:
    reports = extensions.search or []
    return tuple(f"{warning.field}: {warning.message}" for report in reports for warning in report.warnings)
