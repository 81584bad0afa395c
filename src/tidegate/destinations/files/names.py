"""Where a file lies below its root: tenant/installation/stream/start_end_position_id.jsonl, whatever the names hold."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import PurePath
from typing import Final
from urllib.parse import quote

from tidegate.domain.outgoing import Sending

MOST_CHARACTERS: Final = 150
SUFFIX: Final = ".jsonl"
ID_CHARACTERS: Final = 8


def path_of(sending: Sending) -> PurePath:
    """Return the file's path below the root; the same for the same batches, and no other batches have it.

    It has the position of the last batch in it, so the files of a stream sort in the order they were made; and of that
    batch's id the beginning, for positions begin again where a ledger does: with another platform account, another
    database, or one restored from a backup.
    """
    assert sending.period is not None, "a file is made when its run is complete"
    start, end = _compact(sending.period.start), _compact(sending.period.end)
    lane = "" if sending.lane == "live" else f"_{sending.lane}"
    last = sending.batches[-1]
    name = f"{start}_{end}_{last.position:012d}_{last.message_id.removeprefix('msg_')[:ID_CHARACTERS]}{lane}{SUFFIX}"
    return PurePath(component(sending.tenant_id), component(sending.installation), component(sending.stream), name)


def component(name: str) -> str:
    """Return ``name`` as one component of a path: other names have others, and none is hidden or leads elsewhere.

    Letters, digits, ``-``, ``_`` and inner dots stay; everything else is percent-encoded. A long name is cut, and ends
    with ``~`` and a hash.

    >>> component("Acme Ltd"), component(".."), component("a/b")
    ('Acme%20Ltd', '%2E.', 'a%2Fb')
    """
    encoded = quote(name, safe="").replace("~", "%7E")
    if encoded.startswith("."):
        encoded = f"%2E{encoded[1:]}"
    if len(encoded) > MOST_CHARACTERS:
        encoded = f"{encoded[: MOST_CHARACTERS - 17]}~{sha256(name.encode()).hexdigest()[:16]}"
    return encoded


def _compact(instant: datetime) -> str:
    utc = instant.astimezone(UTC)
    return utc.strftime("%Y%m%dT%H%M%S") + (f".{utc.microsecond:06d}" if utc.microsecond else "") + "Z"
