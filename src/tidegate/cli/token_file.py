"""OAuth tokens in a file of one's own, for `connector check`: a refresh token that rotates must not be lost to a look."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from tidegate.connectors.tokens import Held, Renewal
from tidegate.domain.errors import InvalidInput


class TokenFile:
    """A vault in a file of mode 0600, see `tidegate.connectors.tokens.TokenVault`; one process at a time renews."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> Held:
        """Return what the file holds, nothing if there is none. Raises InvalidInput for a file of another kind."""
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._refusal(f"cannot be read ({error.strerror})") from None
        try:
            return msgspec.json.decode(text, type=dict[str, str])
        except msgspec.DecodeError:
            raise self._refusal("is not a token file") from None

    def _refusal(self, problem: str) -> InvalidInput:
        return InvalidInput("--token-file", str(self._path), problem, "Name a file that does not exist yet.")

    async def renew(self, renewal: Renewal) -> Held:
        """Replace the file in one step by what ``renewal`` returns."""
        lock = os.open(self._path.with_name(f"{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            held = await self.read()
            renewed = await renewal(held)
            if renewed is not held:
                self._write(renewed)
            return renewed
        finally:
            os.close(lock)

    def _write(self, renewed: Held) -> None:
        draft = self._path.with_name(f"{self._path.name}.new")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(msgspec.json.encode(renewed))
            out.flush()
            os.fsync(out.fileno())
        draft.replace(self._path)
