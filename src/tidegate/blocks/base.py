"""What every block between fetch and deliver is: pages in, pages out (SPEC 6)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from tidegate.domain.fetch import Page


class Block(Protocol):
    """One step of a workflow. It streams: nothing loads a whole result into memory."""

    def __call__(self, pages: AsyncIterator[Page]) -> AsyncIterator[Page]:
        """Return the pages with their records changed or dropped.

        Every page that comes in goes out, be it empty, with its token and report unchanged: they carry the checkpoint.
        """
        ...
