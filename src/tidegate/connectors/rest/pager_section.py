"""The `pager:` of a stream: how pages follow each other, and what says that one is the last."""

from __future__ import annotations

import re

from tidegate.connectors.rest.declaration import InHeader, PagerDeclaration, PagerKind, PastEnd, Place
from tidegate.connectors.rest.keyset_section import read_keyset
from tidegate.connectors.rest.section import Section
from tidegate.domain.cursor import Path

HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def path_of(text: str | None) -> Path | None:
    """Return the path that a dotted text names."""
    return None if text is None else tuple(text.split("."))


def read_place(section: Section, key: str) -> Place | None:
    """Return where the reply says what ``key`` is about: a dotted path of its body, or `{header: NAME}`; None if absent."""
    if not section.is_mapping(key):
        return path_of(section.optional_text(key))
    named = section.tree(key) or {}
    name = named.get("header")
    if len(named) != 1 or not isinstance(name, str) or not HEADER_NAME.fullmatch(name):
        raise section.refuse(key, "names no header", "Write `{header: NAME}`, or a dotted path of the reply's body.")
    return InHeader(name)


def required_place(section: Section, key: str) -> Place:
    """Return the same of a ``key`` that has to be there."""
    return read_place(section, key) or tuple(section.text(key).split("."))


def read_pager(section: Section) -> PagerDeclaration:
    """Return the pager that ``section`` declares, and finish it."""
    kind = section.choice("type", PagerKind)
    match kind:
        case PagerKind.CURSOR:
            param, token = section.text("param"), required_place(section, "token")
            made = PagerDeclaration(
                kind, param, token=token, has_more=read_place(section, "has_more"), stable=_stable(section)
            )
        case PagerKind.LAST_ID:
            made = PagerDeclaration(kind, section.text("param"), has_more=read_place(section, "has_more"))
        case PagerKind.PAGE:
            made = _page(section)
        case PagerKind.OFFSET:
            made = PagerDeclaration(
                kind,
                section.text("param"),
                has_more=read_place(section, "has_more"),
                total_records=read_place(section, "total_records"),
                stable=_stable(section),
            )
        case PagerKind.KEYSET:
            made = read_keyset(section, read_pager)
        case PagerKind.LINK:
            made = PagerDeclaration(kind, token=read_place(section, "url"), stable=_stable(section))
        case PagerKind.NONE:
            made = PagerDeclaration(kind)
    section.finish()
    return made


def _page(section: Section) -> PagerDeclaration:
    return PagerDeclaration(
        PagerKind.PAGE,
        section.text("param"),
        has_more=read_place(section, "has_more"),
        total_pages=read_place(section, "total_pages"),
        first=section.integer("first", 1),
        stable=_stable(section),
        next_link=section.flag("next_link", False),
        total_records=read_place(section, "total_records"),
        past_end=_past_end(section.section("past_end")),
    )


def _stable(section: Section) -> bool:
    return section.flag("stable", False)


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
