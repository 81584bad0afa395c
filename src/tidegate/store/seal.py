"""Secrets at rest: sealed with AES-256-GCM, bound to the place they belong to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tidegate.domain.errors import InvalidInput

KEY_VARIABLE = "TIDEGATE_KEY"
_NONCE_BYTES = 12
_SECRETS = msgspec.json.Decoder(dict[str, str])


def untold(*secrets: str) -> None:
    """Tell nobody."""


class Sealer:
    """Seals and unseals mappings of secrets under one 256-bit key; ``learn`` is told every secret that passes."""

    def __init__(self, key: bytes, learn: Callable[..., None] = untold) -> None:
        self._learn = learn
        self._cipher = AESGCM(key)
        self._mark = hmac.new(key, b"tidegate fingerprint", hashlib.sha256).digest()

    def seal(self, secrets: Mapping[str, str], place: str) -> bytes:
        """Return ``secrets`` sealed; they unseal only with this key and for this ``place``."""
        self._learn(*secrets.values())
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, msgspec.json.encode(dict(secrets)), place.encode())

    def unseal(self, sealed: bytes, place: str) -> dict[str, str]:
        """Return the secrets. Raises InvalidInput if the key is another one or ``place`` is not theirs."""
        try:
            opened = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode())
        except InvalidTag as error:
            raise InvalidInput(
                KEY_VARIABLE,
                "(hidden)",
                f"does not open the secrets of {place}",
                "Set the key they were sealed with, or apply the configuration again with their values.",
            ) from error
        secrets = _SECRETS.decode(opened)
        self._learn(*secrets.values())
        return secrets

    def fingerprint(self, *parts: object) -> str:
        """Return a keyed digest of ``parts``: tells whether they changed, without telling what they are."""
        return hmac.new(self._mark, msgspec.json.encode(parts, order="sorted"), hashlib.sha256).hexdigest()[:32]


def load_key(environment: Mapping[str, str], data_dir: Path) -> bytes:
    """Return the 32-byte key from ``TIDEGATE_KEY`` (base64) or from ``data_dir/key``, made at first use with mode 0600.

    Raises InvalidInput for a key of another length, a key file that others may read, or a directory not to be written.
    """
    if given := environment.get(KEY_VARIABLE):
        return _decode(given, KEY_VARIABLE)
    file = data_dir / "key"
    try:
        if not file.exists():
            make_data_dir(data_dir)
            _create(file)
        mode, text = file.stat().st_mode & 0o777, file.read_text(errors="replace")
    except OSError as error:
        raise _not_usable(data_dir, error) from None
    if mode & 0o077:
        raise InvalidInput(str(file), oct(mode), "may be read by others", f"chmod 600 {file}")
    return _decode(text.strip(), str(file))


def make_data_dir(data_dir: Path) -> None:
    """Make the data directory unless it is there. Raises InvalidInput if it cannot be made, or is none."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_usable(data_dir, error) from None


def _not_usable(data_dir: Path, error: OSError) -> InvalidInput:
    problem = f"cannot be used ({error.strerror})"
    return InvalidInput("data_dir", str(data_dir), problem, "Set TIDEGATE_DATA_DIR to a directory of yours.")


def _create(file: Path) -> None:
    """Write a new key in one step: of two processes at once, both read the key of the first.

    It and its name are on the disk before anything is sealed with it: what the database commits outlives a power failure.
    """
    draft = file.with_name(f"key.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as out:
            out.write(base64.b64encode(os.urandom(32)).decode() + "\n")
            out.flush()
            os.fsync(out.fileno())
        os.link(draft, file)
        _sync(file.parent)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _decode(text: str, field: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:  # not base64, or not even ASCII
        key = b""
    if len(key) != 32:
        raise InvalidInput(field, "(hidden)", "is not 32 bytes in base64", "Make one with: openssl rand -base64 32")
    return key
