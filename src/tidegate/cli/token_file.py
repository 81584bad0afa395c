"""OAuth tokens in a file of one's own, for `connector check`: a refresh token that rotates must not be lost to a look."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

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
        """Replace the file in one step by what ``renewal`` returns.

        Raises InvalidInput, before ``renewal`` asks for anything, where the file cannot be written.
        """
        lock = self._opened(".lock", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            held = await self.read()
            with os.fdopen(self._opened(".new", os.O_WRONLY | os.O_TRUNC), "wb") as out:
                try:
                    renewed = await renewal(held)
                    if renewed is not held:
                        self._write(out, renewed)
                finally:
                    self._beside(".new").unlink(missing_ok=True)
            return renewed
        finally:
            os.close(lock)

    def _beside(self, ending: str) -> Path:
        return self._path.with_name(f"{self._path.name}{ending}")

    def _opened(self, ending: str, flags: int) -> int:
        try:
            return os.open(self._beside(ending), flags | os.O_CREAT, 0o600)
        except (OSError, ValueError) as error:
            problem = f"cannot be written ({error})"
            raise InvalidInput("--token-file", str(self._path), problem, "Name a file in a folder of yours.") from None

    def _write(self, out: IO[bytes], renewed: Held) -> None:
        out.write(msgspec.json.encode(renewed))
        out.flush()
        os.fsync(out.fileno())
        self._beside(".new").replace(self._path)
