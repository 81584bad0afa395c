"""Texts with ``{settings.name}``, ``{secrets.name}`` and ``{parent.field}`` in them: what they ask for, and filling them in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from tidegate.domain.errors import InvalidInput

PLACEHOLDER = re.compile(r"\{(settings|secrets)\.([A-Za-z0-9_]+)\}")
PARENT = re.compile(r"\{parent\.([A-Za-z0-9_.]+)\}")
BRACED = re.compile(r"\{[^{}]*\}")
SAFE_IN_ADDRESS = re.compile(r"[A-Za-z0-9._~-]+")


def placeholders(text: str) -> list[tuple[str, str]]:
    """Return the ``(settings|secrets, name)`` pairs in ``text``; raises ValueError for any other braced text.

    Fields of a parent, ``{parent.id}``, are not among them: they are known only when its children are asked for.
    """
    found = []
    for braced in BRACED.findall(PARENT.sub("", text)):
        match = PLACEHOLDER.fullmatch(braced)
        if match is None:
            raise ValueError(f"holds {braced}, which is neither {{settings.name}} nor {{secrets.name}}")
        found.append((match[1], match[2]))
    return found


def parent_fields(text: str) -> list[tuple[str, ...]]:
    """Return the paths of the parent's fields that ``text`` asks for."""
    return [tuple(path.split(".")) for path in PARENT.findall(text)]


def fill(text: str, settings: Mapping[str, str], secrets: Mapping[str, str]) -> str:
    """Return ``text`` filled in; every placeholder must have a value."""
    if "{" not in text:
        return text
    return PLACEHOLDER.sub(lambda match: (settings if match[1] == "settings" else secrets)[match[2]], text)


def fill_address(text: str, settings: Mapping[str, str]) -> str:
    """Return an address or path filled in.

    Raises InvalidInput for a setting that would change another part of the address than its own: ``x.example/`` for a
    shop's name must not send the credentials elsewhere. A template that is one placeholder takes a whole address.
    """
    if "{" not in text:
        return text
    if PLACEHOLDER.fullmatch(text):
        return fill(text, settings, {})
    return PLACEHOLDER.sub(_checked(settings), text)


def _checked(settings: Mapping[str, str]) -> Callable[[re.Match[str]], str]:
    def replace(match: re.Match[str]) -> str:
        value = settings[match[2]]
        if not SAFE_IN_ADDRESS.fullmatch(value) or set(value) <= {"."}:
            raise InvalidInput(
                f"settings.{match[2]}",
                value,
                "does not fit into an address",
                "Use letters, digits, '-', '_', '.' and '~' only.",
            )
        return value

    return replace
