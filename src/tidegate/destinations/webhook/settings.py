"""What the configuration says of a webhook, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from tidegate.destinations.webhook.signing import SigningKeys
from tidegate.domain.errors import InvalidInput
from tidegate.domain.spelling import spellings

SETTINGS: Final = frozenset({"url", "timeout_seconds", "max_body_bytes", "retry_for_days"})
SECRETS: Final = frozenset({"url", "signing_secrets"})
LEAST_BODY_BYTES: Final = 16 * 1024
"""Room for what stands before the records (4 KiB are kept for it), and for a record that is not small."""


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """``max_body_bytes`` bounds a request's body; ``retry_for`` is how long a batch is tried; ``hidden`` is never shown."""

    url: str = field(repr=False)
    keys: SigningKeys
    timeout_seconds: int = 20
    max_body_bytes: int = 1024 * 1024
    retry_for: timedelta = timedelta(days=5)
    hidden: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def parse(
        cls, settings: Mapping[str, object], secrets: Mapping[str, str], *, stored: bool = False
    ) -> WebhookSettings:
        """Return the settings. Raises InvalidInput naming the one that is not usable.

        What is ``stored`` may be from before `LEAST_BODY_BYTES` and is taken as it is: no worker stumbles over it.
        """
        least_body = 1 if stored else LEAST_BODY_BYTES
        if "url" in settings and "url" in secrets:
            raise InvalidInput(
                "settings.url", settings["url"], "is given among the secrets too", "Keep one of the two."
            )
        if "signing_secrets" not in secrets:
            raise InvalidInput(
                "secrets.signing_secrets", None, "is missing", "Receivers verify with it: write `${SIGNING_SECRETS}`."
            )
        keys = SigningKeys.parse(secrets["signing_secrets"])
        url = secrets["url"] if "url" in secrets else settings.get("url")
        field_name = "secrets.url" if "url" in secrets else "settings.url"
        return cls(
            url=_address(field_name, url, hidden="url" in secrets),
            keys=keys,
            timeout_seconds=_whole(settings, "timeout_seconds", 20, 1, 60),
            max_body_bytes=_whole(settings, "max_body_bytes", 1024 * 1024, least_body, 32 * 1024 * 1024),
            retry_for=timedelta(days=_whole(settings, "retry_for_days", 5, 1, 60)),
            hidden=_hidden(*keys.hidden, *([secrets["url"]] if "url" in secrets else [])),
        )


def _hidden(*secrets: str) -> tuple[str, ...]:
    return tuple({spelling for secret in secrets for spelling in spellings(secret)})


def _address(name: str, url: object, *, hidden: bool) -> str:
    shown = "(hidden)" if hidden else url
    remedy = "Write https://host/path; http:// for a receiver in your own network."
    if not isinstance(url, str) or not url:
        raise InvalidInput(name, shown, "is missing or no text", remedy)
    try:
        address = urlsplit(url)
        usable = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise InvalidInput(name, shown, "is not the address of a web server", remedy)
    if address.username or address.password or address.fragment:
        problem = "holds a user or a password" if address.username or address.password else "holds a fragment (#)"
        raise InvalidInput(name, "(hidden)", problem, "Leave it out; receivers verify the signature.")
    return url


def _whole(settings: Mapping[str, object], name: str, default: int, least: int, most: int) -> int:
    value = settings.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        problem = f"is not a whole number from {least} to {most}"
        raise InvalidInput(f"settings.{name}", value, problem, f"Leave it out for {default}.")
    return value
