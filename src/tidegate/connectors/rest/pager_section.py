"""The `pager:` of a stream: how pages follow each other, and what says that one is the last."""

from __future__ import annotations

from tidegate.connectors.rest.declaration import PagerDeclaration, PagerKind, PastEnd
from tidegate.connectors.rest.keyset_section import read_keyset
from tidegate.connectors.rest.section import Section
from tidegate.domain.cursor import Path


def path_of(text: str | None) -> Path | None:
    """Return the path that a dotted text names."""
    return None if text is None else tuple(text.split("."))


def read_pager(section: Section) -> PagerDeclaration:
    """Return the pager that ``section`` declares, and finish it."""
    kind = section.choice("type", PagerKind)

    def path(key: str) -> Path | None:
        return path_of(section.optional_text(key))

    match kind:
        case PagerKind.CURSOR:
            made = PagerDeclaration(
                kind,
                section.text("param"),
                token=path_of(section.text("token")),
                has_more=path("has_more"),
                stable=section.flag("stable", False),
            )
        case PagerKind.LAST_ID:
            made = PagerDeclaration(kind, section.text("param"), has_more=path("has_more"))
        case PagerKind.PAGE:
            made = PagerDeclaration(
                kind,
                section.text("param"),
                has_more=path("has_more"),
                total_pages=path("total_pages"),
                total_pages_header=section.optional_text("total_pages_header"),
                first=section.integer("first", 1),
                stable=section.flag("stable", False),
                next_link=section.flag("next_link", False),
                total_records=path("total_records"),
                past_end=_past_end(section.section("past_end")),
            )
        case PagerKind.OFFSET:
            made = PagerDeclaration(
                kind,
                section.text("param"),
                has_more=path("has_more"),
                total_records=path("total_records"),
                stable=section.flag("stable", False),
            )
        case PagerKind.KEYSET:
            made = read_keyset(section, read_pager)
        case PagerKind.LINK:
            made = PagerDeclaration(kind, token=path("url"), stable=section.flag("stable", False))
        case PagerKind.NONE:
            made = PagerDeclaration(kind)
    section.finish()
    return made


def _past_end(section: Section | None) -> PastEnd | None:
    if section is None:
        return None
    statuses, text = section.statuses("statuses"), section.text("text")
    for key, wrong in (
        ("statuses", not statuses or not all(400 <= s < 500 for s in statuses)),
        ("text", not text.strip()),
    ):
        if wrong:
            raise section.refuse(
                key, "does not tell the end from any other refusal", "Write 4xx statuses, and a text of the body."
            )
    section.finish()
    return PastEnd(statuses, text)
