"""Standard Webhooks: the headers that a receiver verifies (https://www.standardwebhooks.com, "symmetric signatures")."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tidegate.domain.errors import InvalidInput

PREFIX = "whsec_"
LEAST_BYTES, MOST_BYTES = 24, 64
"""The lengths of a key that Standard Webhooks allows."""


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The active keys, newest first. Every message is signed with each, so that a receiver may hold any of them."""

    keys: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> SigningKeys:
        """Return the keys of ``whsec_…`` secrets, separated by blanks. Raises InvalidInput; the text is never shown."""
        secrets = text.split()
        keys = tuple(_key(secret) for secret in secrets)
        if not keys or len(set(keys)) < len(keys):
            raise _unusable("holds no key" if not keys else "holds a key twice")
        return cls(keys)

    def headers(self, message_id: str, sent_at: datetime, body: bytes) -> dict[str, str]:
        """Return ``webhook-id``, ``webhook-timestamp`` (whole seconds) and ``webhook-signature`` of one attempt."""
        timestamp = str(int(sent_at.timestamp()))
        signed = b".".join((message_id.encode(), timestamp.encode(), body))
        return {
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(f"v1,{_signature(key, signed)}" for key in self.keys),
        }

    @property
    def hidden(self) -> Sequence[str]:
        """Return the secrets' texts, never to be shown."""
        return [base64.b64encode(key).decode() for key in self.keys]


def _signature(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _key(secret: str) -> bytes:
    if not secret.startswith(PREFIX):
        raise _unusable(f"does not begin with {PREFIX}")
    encoded = secret.removeprefix(PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        raise _unusable("is not base64") from None
    if not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise _unusable(f"is {len(key)} bytes long, not {LEAST_BYTES} to {MOST_BYTES}")
    return key


def _unusable(problem: str) -> InvalidInput:
    return InvalidInput(
        "secrets.signing_secrets",
        "(hidden)",
        problem,
        'Make one with: echo "whsec_$(openssl rand -base64 32)"; several are separated by blanks, the newest first.',
    )
