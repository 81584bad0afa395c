"""What a YAML file declares about one platform, as values (docs/reference/connectors.md lists every key)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from tidegate.connectors.graphql import ErrorCodes
from tidegate.domain.capacity import RateLimit
from tidegate.domain.cursor import CursorFormat, Path
from tidegate.domain.stream import Stream

if TYPE_CHECKING:
    from tidegate.connectors.rest.query import Query

Param: TypeAlias = str | int | float | bool
"""A request parameter's value: written out in a query, kept as it is in the JSON body of a POST."""

Tree: TypeAlias = "Mapping[str, Tree] | list[Tree] | str | int | float | bool | None"
"""A JSON body as declared; its texts may name request parameters."""


@dataclass(frozen=True, slots=True)
class InHeader:
    """A header of the reply, as the place of what a body holds elsewhere."""

    name: str

    def __str__(self) -> str:
        return f"the header {self.name}"


Place: TypeAlias = Path | InHeader
"""Where a reply says something: at a path of its body, or in a header."""


def place_text(place: Place) -> str:
    """Return ``place`` by its name."""
    return str(place) if isinstance(place, InHeader) else ".".join(place)


def at_place(place: Place) -> str:
    """Return ``place`` as the end of a sentence about what stands there."""
    return f"{'in' if isinstance(place, InHeader) else 'at'} {place_text(place)}"


INSTANT = "{instant}"
"""Where the value of a bound holds the instant."""


class Meaning(StrEnum):
    """Whether records exactly at a filter's value are shown (HOLE j)."""

    INCLUSIVE = "inclusive"
    EXCLUSIVE = "exclusive"


@dataclass(frozen=True, slots=True)
class BoundParam:
    """A request parameter that bounds a listing by the cursor field: how it is written, and what it means.

    ``grain``: the smallest step that the source tells apart, never finer than the format or the cursor's precision.
    ``number``: in a JSON body it is a number and no text. ``value``: what is sent, with `INSTANT` where the instant stands:
    some sources want an operator in front of it.
    """

    param: str
    meaning: Meaning
    format: CursorFormat
    grain: timedelta
    time_zone: str
    number: bool = False
    value: str = INSTANT

    def around(self, instant: str) -> str:
        """Return what is sent for an ``instant`` that is written out."""
        return self.value.replace(INSTANT, instant)


class AuthenticationKind(StrEnum):
    """How a connection proves who it is."""

    NONE = "none"
    BASIC = "basic"
    BEARER = "bearer"
    HEADER = "header"
    QUERY = "query"
    LOGIN = "login"
    OAUTH2 = "oauth2"


@dataclass(frozen=True, slots=True)
class Login:
    """The call that turns secrets into a token. ``expires_in``: where the reply says its life in seconds, or None."""

    path: str
    body: Mapping[str, Param]
    token: Path
    expires_in: Path | None


class Grant(StrEnum):
    """How access tokens are had (RFC 6749, 4.4 and 6); the value is what is sent."""

    CLIENT_CREDENTIALS = "client_credentials"
    REFRESH_TOKEN = "refresh_token"  # noqa: S105


class ClientAuthentication(StrEnum):
    """How the client proves itself to the token endpoint (RFC 6749, 2.3.1)."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class OAuth:
    """Where and how OAuth 2 access tokens are had; texts are templates over settings and secrets.

    ``refresh_token``: the first one; those that follow are in the connection's vault. ``params``: sent beside them.
    """

    grant: Grant
    token_url: str
    client_id: str
    client_secret: str = ""
    client_authentication: ClientAuthentication = ClientAuthentication.BASIC
    refresh_token: str = ""
    scope: str = ""
    audience: str = ""
    params: Mapping[str, Param] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Authentication:
    """What is sent with each request; values are templates over settings and secrets.

    ``verify``: a path that is refused without valid credentials, "" if every path is.
    """

    kind: AuthenticationKind = AuthenticationKind.NONE
    name: str = ""
    value: str = ""
    username: str = ""
    password: str = ""
    login: Login | None = None
    oauth: OAuth | None = None
    verify: str = ""


class EmptyForm(StrEnum):
    """How a source writes a list without records, other than as an empty list."""

    NULL = "null"
    ABSENT = "absent"
    NO_CONTENT = "no_content"  # status 204


class PagerKind(StrEnum):
    """How a source divides a listing into pages."""

    NONE = "none"
    CURSOR = "cursor"
    LAST_ID = "last_id"
    LINK = "link"
    PAGE = "page"
    OFFSET = "offset"
    KEYSET = "keyset"


@dataclass(frozen=True, slots=True)
class PastEnd:
    """How a source refuses a page after the last one: by one of ``statuses``, with ``text`` in the body."""

    statuses: frozenset[int]
    text: str


@dataclass(frozen=True, slots=True)
class PagerDeclaration:
    """How pages are asked for and what says that one is the last.

    ``param``: the parameter that carries the position. ``token``, ``has_more``, ``total_pages``, ``total_records``:
    where the reply says them; of a link pager ``token`` is the next page's address, None if the Link header has it.
    ``first``: the first page's number. ``past_end``: how the source refuses a
    page after the last one.
    ``stable``: the source promises that a listing does not shift while it is read (HOLE gg). ``next_link``: the Link header
    says whether there is a next page. ``within``: pages the records of one cursor value in a keyset; ``ties``: so does its
    key, sent as ``param`` in another ``body``.
    """

    kind: PagerKind = PagerKind.NONE
    param: str = ""
    token: Place | None = None
    has_more: Place | None = None
    total_pages: Place | None = None
    total_records: Place | None = None
    first: int = 1
    stable: bool = False
    next_link: bool = False
    past_end: PastEnd | None = None
    within: PagerDeclaration | None = None
    ties: Mapping[str, Tree] | None = None


@dataclass(frozen=True, slots=True)
class LimitSigns:
    """How a refused reply tells of a rate limit, and for how long.

    ``remaining``, ``reset``: the headers that say what is left of the limit, and when it is whole again; "" if none does.
    ``texts``: what the body says then, in lower case. ``wait_seconds``: how long to wait where no header says so.
    """

    remaining: str = ""
    reset: str = ""
    texts: tuple[str, ...] = ()
    wait_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ChangesDeclaration:
    """How a source is asked what has changed since a token that it gave itself.

    ``param``: carries that token. ``token``: where a listing's last page holds the next one. ``expired``: statuses, and
    ``expired_codes``: codes of GraphQL errors, by which the source says that it does not know a token any more.
    ``removed``: where a page lists what is deleted, None if deletions are told by the records themselves; each becomes
    a record whose field ``mark`` is true.
    """

    param: str
    token: Place
    expired: frozenset[int]
    expired_codes: frozenset[str]
    removed: Path | None
    mark: str


@dataclass(frozen=True, slots=True)
class ParentDeclaration:
    """Whose records a child stream's records belong to.

    ``each``: where a parent's record holds its children, None if they are only asked for. ``has_more``, ``at_most``: where the
    record says that this list was cut off, and the length from which on it has to be taken for cut off; ``optional``: a record
    without the list has no children. ``prefix`` stands before
    the names of the parent's ``fields`` in each child; key and cursor are always among them. ``own_key``: the child's
    key without the parent's.
    """

    stream: str
    prefix: str
    each: Path | None
    has_more: Path | None = None
    at_most: int | None = None
    optional: bool = False
    fields: tuple[Path, ...] = ()
    own_key: tuple[str, ...] = ()

    def name_of(self, path: Path) -> str:
        """Return the name under which a child carries the parent's field at ``path``."""
        return self.prefix + "_".join(path)


@dataclass(frozen=True, slots=True)
class StreamDeclaration:
    """How one stream is listed. ``params`` shape the listing; ``filters`` restrict it and keep a run unproven (SPEC 5).

    ``history``: how far back the source serves records, None for all of them (HOLE w). ``query``: the GraphQL query
    whose variables the parameters are, None for a REST stream. ``inside``: the member of each listed element that is the
    record, "" if the element itself is. ``parent``: whose children the records are, None for a stream that stands alone;
    then ``path`` is "" if they are never asked for by themselves. ``body``: where a POST carries its parameters, None for
    members of their own. ``empty``: what the source writes instead of an empty list. ``page_size``: the records asked for
    with each page, None if that is the source's to say.
    """

    stream: Stream
    path: str
    method: str
    records: Path
    params: Mapping[str, Param]
    filters: Mapping[str, Param]
    lower: BoundParam | None
    upper: BoundParam | None
    history: timedelta | None
    pager: PagerDeclaration
    query: Query | None = None
    inside: str = ""
    parent: ParentDeclaration | None = None
    changes: ChangesDeclaration | None = None
    body: Mapping[str, Tree] | None = None
    empty: frozenset[EmptyForm] = frozenset()
    page_size: int | None = None


@dataclass(frozen=True, slots=True)
class Declaration:
    """One platform. ``settings``: the names a connection may set, each with its default, None where it must.

    ``identity``: those of them that tell one platform account from another (SPEC 2.12).
    """

    name: str
    base_url: str
    settings: Mapping[str, str | None] = field(default_factory=dict)
    identity: tuple[str, ...] = ()
    headers: Mapping[str, Param] = field(default_factory=dict)
    authentication: Authentication = field(default_factory=Authentication)
    rate_limit: RateLimit | None = None
    limit_signs: LimitSigns = LimitSigns()
    retryable_statuses: frozenset[int] = frozenset()
    rate_limit_statuses: frozenset[int] = frozenset()
    max_body_bytes: int = 0
    error_codes: ErrorCodes = field(default_factory=ErrorCodes)
    streams: Mapping[str, StreamDeclaration] = field(default_factory=dict)
