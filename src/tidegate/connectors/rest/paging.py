"""The pager that a declaration describes."""

from __future__ import annotations

from tidegate.connectors.rest.counting import OffsetPager, PagePager
from tidegate.connectors.rest.declaration import PagerDeclaration, PagerKind, Place
from tidegate.connectors.rest.pagers import CursorPager, LastIdPager, LinkPager, NoPager, Pager
from tidegate.connectors.rest.placed import PlacedPager


def pager(
    declaration: PagerDeclaration, *, change_token: Place | None = None, sizes: frozenset[int] = frozenset()
) -> Pager:
    """Return the pager that ``declaration`` describes.

    ``change_token``: where the reply has the stream's, which is no place; ``sizes``: numbers that each request holds.
    """
    match declaration.kind:
        case PagerKind.NONE:
            return NoPager()
        case PagerKind.CURSOR:
            assert declaration.token is not None
            cursor = CursorPager(declaration.param, declaration.token, declaration.has_more)
            return cursor if declaration.stable or declaration.token == change_token else PlacedPager(cursor, sizes)
        case PagerKind.LAST_ID:
            return LastIdPager(declaration.param, declaration.has_more)
        case PagerKind.LINK:
            link = LinkPager(declaration.token)
            return link if declaration.stable else PlacedPager(link, sizes)
        case PagerKind.PAGE:
            return PagePager(
                declaration.param,
                declaration.first,
                declaration.has_more,
                declaration.total_pages,
                declaration.stable,
                declaration.next_link,
                declaration.total_records,
            )
        case PagerKind.OFFSET:
            return OffsetPager(declaration.param, declaration.has_more, declaration.total_records, declaration.stable)
        case PagerKind.KEYSET:
            raise AssertionError("a keyset pager is made for its stream (tidegate.connectors.rest.keyset)")
