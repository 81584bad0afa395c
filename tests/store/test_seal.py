"""Secrets at rest open with their key in their place, and nowhere else."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.domain.errors import InvalidInput
from tidegate.store.seal import Sealer, load_key

PLACE = "connection/acme/shop"
SECRETS = {"token": "hush"}


def test_what_is_sealed_unseals_and_does_not_show() -> None:
    """Same key, same place; the same secrets are never sealed alike twice."""
    sealer = Sealer(bytes(32))
    sealed = sealer.seal(SECRETS, PLACE)
    assert sealer.unseal(sealed, PLACE) == SECRETS
    assert b"hush" not in sealed
    assert sealed != sealer.seal(SECRETS, PLACE)


@pytest.mark.parametrize(
    ("key", "place"),
    [(bytes(31) + b"1", PLACE), (bytes(32), "connection/globex/shop")],
    ids=["wrong key", "wrong place"],
)
def test_it_opens_nowhere_else(key: bytes, place: str) -> None:
    """A row copied to another tenant is of no use there; the error names the place and shows nothing."""
    sealed = Sealer(bytes(32)).seal(SECRETS, PLACE)
    with pytest.raises(InvalidInput, match=place) as refusal:
        Sealer(key).unseal(sealed, place)
    assert "hush" not in str(refusal.value.as_json())


@pytest.mark.parametrize("at", [0, 12, -1], ids=["nonce", "text", "tag"])
def test_a_changed_byte_is_found(at: int) -> None:
    """Sealed is authenticated too."""
    sealed = bytearray(Sealer(bytes(32)).seal(SECRETS, PLACE))
    sealed[at] ^= 1
    with pytest.raises(InvalidInput):
        Sealer(bytes(32)).unseal(bytes(sealed), PLACE)


def test_a_fingerprint_tells_a_change_and_needs_the_key() -> None:
    """It goes into the database in the clear, so it must not be a plain digest of a secret."""
    ours, theirs = Sealer(bytes(32)), Sealer(bytes(31) + b"1")
    assert ours.fingerprint({"a": 1, "b": 2}) == ours.fingerprint({"b": 2, "a": 1})
    assert ours.fingerprint(SECRETS) != ours.fingerprint({"token": "hushed"})
    assert ours.fingerprint(SECRETS) != theirs.fingerprint(SECRETS)


def test_the_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """Mode 0600 from its first moment, whatever the umask; the second time it is read."""
    before = os.umask(0)
    try:
        key = load_key({}, tmp_path)
    finally:
        os.umask(before)
    assert len(key) == 32
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert load_key({}, tmp_path) == key
    assert [file.name for file in tmp_path.iterdir()] == ["key"]


def test_the_key_is_on_the_disk_before_anything_is_sealed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the database has committed outlives a power failure, and so must what opens it."""
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    load_key({}, tmp_path)
    assert synced == [str(tmp_path / f"key.{os.getpid()}"), str(tmp_path)]


def test_a_full_disk_leaves_no_half_a_key_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 8: nothing half-written; `tidegate restore` wants an empty directory."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InvalidInput, match="No space left on device"):
        load_key({}, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_file_that_others_may_read_is_refused(mode: int, tmp_path: Path) -> None:
    """The error names the file and the remedy."""
    load_key({}, tmp_path)
    (tmp_path / "key").chmod(mode)
    with pytest.raises(InvalidInput, match="chmod 600"):
        load_key({}, tmp_path)


@pytest.mark.parametrize(
    "text", ["short", base64.b64encode(bytes(16)).decode(), "é" * 44], ids=["text", "16 bytes", "no base64"]
)
def test_a_key_of_another_length_is_refused_and_not_shown(text: str, tmp_path: Path) -> None:
    """Never padded, never cut."""
    with pytest.raises(InvalidInput, match="32 bytes") as refusal:
        load_key({"TIDEGATE_KEY": text}, tmp_path)
    assert text not in str(refusal.value.as_json())


def test_processes_that_start_at_once_share_one_key(tmp_path: Path) -> None:
    """Both read the key of the first, and no draft is left behind."""
    code = (
        "import sys; from pathlib import Path; from tidegate.store.seal import load_key; print('up', flush=True);"
        "sys.stdin.readline(); print(load_key({}, Path(sys.argv[1])).hex())"
    )
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for process in crowd:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    keys = {process.communicate(timeout=60)[0].strip() for process in crowd}
    assert len(keys) == 1
    assert len(keys.pop()) == 64
    assert [file.name for file in tmp_path.iterdir()] == ["key"]
