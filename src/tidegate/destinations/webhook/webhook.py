"""The webhook destination. What becomes of a batch, by what the receiver answers (SPEC 5):

2xx                                                  acknowledged
408, 425, 429, 5xx                                   sent again, after Retry-After if it asks for longer
no connection, or none of the above in time          sent again
410                                                  dead letter, and the installation is paused
3xx (never followed), any other 4xx                  dead letter at once; the next batch goes on
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import version
from typing import Final

import aiohttp
from yarl import URL

from tidegate.destinations.base import DeliveryKey, Target
from tidegate.destinations.outbox import Handing, Outbox, OutboxWriter
from tidegate.destinations.postgres.load import Pool
from tidegate.destinations.records import Seen
from tidegate.destinations.webhook.message import messages, too_large
from tidegate.destinations.webhook.settings import WebhookSettings
from tidegate.domain.clock import Clock
from tidegate.domain.errors import DestinationUnavailable
from tidegate.domain.http_reply import excerpt, http_date, printable, wait_asked_for
from tidegate.domain.outgoing import TO_RECEIVER, Answer, Message, Route, Sending, Verdict
from tidegate.domain.spelling import masked

PASSING: Final = frozenset({408, 425, 429})
READ_BYTES: Final = 4096
"""Of a reply's body no more is read: it is for people only."""


class Webhook:
    """A destination that posts batches to one address, over a session that refuses private addresses unless told not to."""

    def __init__(
        self,
        settings: WebhookSettings,
        destination_id: int,
        session: aiohttp.ClientSession,
        pool: Pool,
        outbox: Outbox,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._session = session
        self._handing = Handing(
            pool=pool,
            outbox=outbox,
            clock=clock,
            destination_id=destination_id,
            whole_periods=False,
            render=self._render,
            refusal=partial(too_large, max_body_bytes=settings.max_body_bytes),
        )

    def writer(self, target: Target, run_id: int, epoch: int) -> OutboxWriter:
        """Return the writer of one run; ``epoch`` is the ledger's affair here. Does no I/O."""
        return OutboxWriter(self._handing, target, run_id)

    async def close(self) -> None:
        """Do nothing: pool and session are not ours."""

    @property
    def retry_for(self) -> timedelta:
        """Return how long a batch is tried before it goes to the dead letter."""
        return self._settings.retry_for

    async def reach(self) -> None:
        """Return if a web server answers at the address, whatever it says to a HEAD. Raises DestinationUnavailable."""
        try:
            async with self._session.head(
                URL(self._settings.url, encoded=True), allow_redirects=False, trace_request_ctx=TO_RECEIVER,
                timeout=aiohttp.ClientTimeout(total=self._settings.timeout_seconds),
            ):  # fmt: skip
                return
        except TimeoutError:
            problem = f"has not answered within {self._settings.timeout_seconds} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            problem = self._wrong(error)
        raise DestinationUnavailable(
            problem, remedy="Look whether it is up and its address is right; batches wait for it."
        )

    async def send(self, sending: Sending, now: datetime) -> Answer:
        """Post one batch, signed at ``now``, and return what the receiver answered."""
        (batch,) = sending.batches
        body = await sending.body(batch)
        headers = self._settings.keys.headers(batch.message_id, now, body) | {
            "Content-Type": "application/json",
            "User-Agent": f"tidegate-webhooks/{version('tidegate')}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        try:
            async with self._session.post(
                URL(self._settings.url, encoded=True), data=body, headers=headers, allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self._settings.timeout_seconds), trace_request_ctx=TO_RECEIVER,
            ) as response:  # fmt: skip
                return self._judge(response, await _beginning(response))
        except TimeoutError:
            return Answer(Verdict.AGAIN, detail=f"No answer within {self._settings.timeout_seconds} s.")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(Verdict.AGAIN, detail=self._wrong(error))

    def _judge(self, response: aiohttp.ClientResponse, text: bytes) -> Answer:
        status = response.status
        if 200 <= status < 300:
            return Answer(Verdict.ACKNOWLEDGED, status)
        said = f"The receiver answered {status}{self._hint(response)}."
        detail = f"{said} {excerpt(text, self._settings.hidden)}".rstrip()
        if status in PASSING or status >= 500:
            replied_at = http_date(response.headers.get("Date", ""))
            wait = wait_asked_for(response.headers.get("Retry-After", ""), replied_at)
            return Answer(Verdict.AGAIN, status, detail, wait)
        return Answer(Verdict.GONE if status == 410 else Verdict.REFUSED, status, detail)

    def _hint(self, response: aiohttp.ClientResponse) -> str:
        """Return what to do about an answer that its receiver's body seldom explains."""
        if 300 <= response.status < 400:
            there = printable(self._hidden(response.headers.get("Location", "").partition("?")[0])[:200])
            return f": it points to {there or 'no other address'}, and redirects are not followed; configure the address itself"
        if response.status == 413:
            return ": it takes no body as large as this; let it take more, then replay. Lower max_body_bytes for those to come"
        return ""

    def _wrong(self, error: Exception) -> str:
        """Return for people why there was no answer."""
        match error:
            case aiohttp.ClientConnectorError(os_error=OSError(errno=errno.EACCES, strerror=why)):
                return f"Not sent: {why}. If the receiver is yours, set TIDEGATE_ALLOW_PRIVATE_ADDRESSES=1."
            case aiohttp.ClientConnectorCertificateError():
                told = f"Its certificate is not accepted: {error.certificate_error}."
            case aiohttp.ClientConnectorDNSError():
                told = f"Its name is not found: {error.os_error.strerror or error.os_error}."
            case aiohttp.ClientConnectorError():
                told = f"It cannot be connected to: {error.os_error.strerror or error.os_error}."
            case aiohttp.ServerDisconnectedError():
                told = "It cut the connection before it had answered."
            case aiohttp.ClientResponseError():
                told = f"Its answer is no HTTP: {error.message.partition(chr(10))[0].rstrip(':')}."
            case _:
                told = f"{type(error).__name__}: {error}".strip()
        return printable(self._hidden(told))

    def _hidden(self, text: str) -> str:
        return masked(text, self._settings.hidden)

    def _render(self, target: Target, route: Route, key: DeliveryKey, records: Sequence[Seen]) -> list[Message]:
        return messages(target, route, key, records, self._settings.max_body_bytes)


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """Return the beginning of a failing reply's body, b"" of one that cannot be read: its status has been said by then."""
    if 200 <= response.status < 300:
        return b""
    try:
        return await response.content.read(READ_BYTES)
    except (TimeoutError, aiohttp.ClientError, OSError):
        return b""
