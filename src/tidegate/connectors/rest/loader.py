"""YAML into a Declaration, or InvalidInput with the dotted path, the line and the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from itertools import permutations

from tidegate.connectors.rest.changes_section import read_changes
from tidegate.connectors.rest.declaration import (
    INSTANT,
    Authentication,
    AuthenticationKind,
    BoundParam,
    ClientAuthentication,
    Declaration,
    EmptyForm,
    Grant,
    InHeader,
    LimitSigns,
    Login,
    Meaning,
    OAuth,
    PagerDeclaration,
    PagerKind,
    Param,
    StreamDeclaration,
)
from tidegate.connectors.rest.filters import overshoot
from tidegate.connectors.rest.graphql_section import DEFAULT_PATH, check_asked, read_asked, read_error_codes
from tidegate.connectors.rest.keyset_section import check_bodies
from tidegate.connectors.rest.pager_section import path_of, read_pager
from tidegate.connectors.rest.parent_section import adopted, read_parent
from tidegate.connectors.rest.section import Section, suggest
from tidegate.connectors.rest.template import PLACEHOLDER, placeholders
from tidegate.domain.capacity import RateLimit
from tidegate.domain.cursor import CursorField, CursorFormat
from tidegate.domain.stream import ColumnType, Stream
from tidegate.domain.zone import find_zone

DEFAULT_MAX_BODY_MIB = 64
SECOND = timedelta(seconds=1)
FORMAT_GRAIN = {
    CursorFormat.ISO: timedelta(microseconds=1),
    CursorFormat.LOCAL: timedelta(microseconds=1),
    CursorFormat.EPOCH_SECONDS: SECOND,
    CursorFormat.EPOCH_MILLISECONDS: timedelta(milliseconds=1),
    CursorFormat.DATE: timedelta(days=1),
}
ON_THE_WALL = frozenset({CursorFormat.LOCAL, CursorFormat.DATE})
METHODS = ("GET", "POST")


def load(text: str) -> Declaration:
    """Return the declaration that the YAML ``text`` holds."""
    root = Section.parse(text)
    name = root.text("name")
    settings = _settings(root.section("settings"))
    limit = root.section("rate_limit")
    sections = dict(root.sections("streams"))
    streams = {stream: _stream(stream, section, settings) for stream, section in sections.items()}
    declaration = Declaration(
        name=name,
        base_url=_template(root, "base_url", settings, secrets_allowed=False),
        settings=settings,
        identity=_identity(root, settings),
        headers=_templates(root, "headers", settings),
        authentication=_authentication(root.section("authentication"), settings),
        rate_limit=None if limit is None else _rate_limit(limit),
        limit_signs=LimitSigns() if limit is None else _limit_signs(limit),
        retryable_statuses=root.statuses("retryable_statuses"),
        rate_limit_statuses=root.statuses("rate_limit_statuses"),
        max_body_bytes=root.integer("max_body_mib", DEFAULT_MAX_BODY_MIB, least=1) * 1024 * 1024,
        error_codes=read_error_codes(root.section("graphql")),
        streams={name: adopted(sections[name], made, streams) for name, made in streams.items()},
    )
    root.finish()
    if not declaration.streams:
        raise root.refuse("streams", "is empty", "Declare at least one stream.")
    return declaration


def _settings(section: Section | None) -> dict[str, str | None]:
    if section is None:
        return {}
    values = {name: section.scalar(name) for name in section}
    return {name: None if value is None else str(value) for name, value in values.items()}


def _identity(root: Section, settings: Mapping[str, str | None]) -> tuple[str, ...]:
    names = tuple(str(item) for item in root.items("identity"))
    for name in names:
        if name not in settings:
            raise root.refuse("identity", f"names {name!r}, which is no setting", suggest(name, settings))
        if names.count(name) > 1:
            raise root.refuse("identity", f"names {name!r} twice", "Name each setting once.")
    return names


def _check(section: Section, key: str, text: str, settings: Mapping[str, str | None], *, secrets_allowed: bool) -> str:
    try:
        found = placeholders(text)
    except ValueError as error:
        raise section.refuse(key, str(error), "Write {settings.name} or {secrets.name}.") from None
    for kind, name in found:
        if kind == "settings" and name not in settings:
            raise section.refuse(
                key, f"names the setting {name!r}, which `settings:` does not declare", suggest(name, settings)
            )
        if kind == "secrets" and not secrets_allowed:
            raise section.refuse(
                key, "holds a secret, which would show in logs", "Keep secrets to `authentication` and `headers`."
            )
    return text


def _template(section: Section, key: str, settings: Mapping[str, str | None], *, secrets_allowed: bool) -> str:
    return _check(section, key, section.text(key), settings, secrets_allowed=secrets_allowed)


def _templates(
    section: Section, key: str, settings: Mapping[str, str | None], *, secrets_allowed: bool = True
) -> dict[str, Param]:
    values = section.values(key)
    for value in values.values():
        _check(section, key, str(value), settings, secrets_allowed=secrets_allowed)
    return values


def _rate_limit(section: Section) -> RateLimit:
    return RateLimit(
        section.number("requests_per_second", least=0.001),
        section.integer("burst", 1, least=1),
    )


def _limit_signs(section: Section) -> LimitSigns:
    texts = section.items("texts")
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise section.refuse("texts", "is not a list of texts", "Write what the source says: [exceeded a rate limit].")
    wait = section.number("wait_seconds", 0)
    signs = LimitSigns(
        section.text("remaining_header", ""),
        section.text("reset_header", ""),
        tuple(str(text).lower() for text in texts),
        wait or None,
    )
    section.finish()
    return signs


def _authentication(section: Section | None, settings: Mapping[str, str | None]) -> Authentication:
    if section is None:
        return Authentication()

    def template(key: str) -> str:
        return _template(section, key, settings, secrets_allowed=True)

    kind = section.choice("type", AuthenticationKind)
    match kind:
        case AuthenticationKind.BASIC:
            password = _check(section, "password", section.text("password", ""), settings, secrets_allowed=True)
            made = Authentication(kind, username=template("username"), password=password)
        case AuthenticationKind.BEARER:
            made = Authentication(kind, value=template("token"))
        case AuthenticationKind.HEADER | AuthenticationKind.QUERY:
            made = Authentication(kind, name=section.text("name"), value=template("value"))
        case AuthenticationKind.LOGIN:
            token, expires_in = path_of(section.text("token")), path_of(section.optional_text("expires_in"))
            assert token is not None
            path = _template(section, "path", settings, secrets_allowed=False)
            made = Authentication(kind, login=Login(path, _templates(section, "body", settings), token, expires_in))
        case AuthenticationKind.OAUTH2:
            made = Authentication(kind, oauth=_oauth(section, settings))
        case AuthenticationKind.NONE:
            made = Authentication()
    if kind is not AuthenticationKind.NONE and "verify" in section:
        made = replace(made, verify=_below_base(section, "verify", settings))
    section.finish()
    return made


def _below_base(section: Section, key: str, settings: Mapping[str, str | None]) -> str:
    path = _template(section, key, settings, secrets_allowed=False)
    if not path.startswith("/") or "?" in path or "#" in path:
        raise section.refuse(key, "is not a path", "Write the path after base_url, such as /v1/me.")
    return path


def _oauth(section: Section, settings: Mapping[str, str | None]) -> OAuth:
    def text(key: str, default: str | None = None, *, secret: bool = True) -> str:
        return _check(section, key, section.text(key, default), settings, secrets_allowed=secret)

    grant = section.choice("grant", Grant)
    how = section.choice("client_authentication", ClientAuthentication, ClientAuthentication.BASIC)
    return OAuth(
        grant=grant,
        token_url=text("token_url", secret=False),
        client_id=text("client_id"),
        client_secret="" if how is ClientAuthentication.NONE else text("client_secret"),
        client_authentication=how,
        refresh_token=text("refresh_token") if grant is Grant.REFRESH_TOKEN else "",
        scope=text("scope", "", secret=False),
        audience=text("audience", "", secret=False),
        params=_templates(section, "params", settings),
    )


def _stream(name: str, section: Section, settings: Mapping[str, str | None]) -> StreamDeclaration:
    key = tuple(str(item) for item in section.items("key")) or ("id",)
    cursor_section, pager_section = section.section("cursor"), section.section("pager")
    asked, parent = read_asked(section), read_parent(section)
    cursor = None if cursor_section is None else _cursor(cursor_section)
    lookback, history = section.seconds("lookback_seconds"), section.seconds("history_seconds")
    params = _templates(section, "params", settings, secrets_allowed=False)
    pager = PagerDeclaration() if pager_section is None else read_pager(pager_section)
    sized = _page_size(section.section("page_size"), pager)
    params.update(sized)
    lower = _bound(section, "lower", cursor)
    feed = "changes" in section
    made = StreamDeclaration(
        stream=Stream(name, key, cursor, lookback, _columns(section), change_feed=feed, overshoot=overshoot(lower)),
        path=_address(section, settings, default=DEFAULT_PATH if asked else "" if parent else None),
        method=section.text("method", "POST" if asked else "GET"),
        records=(asked and asked.records) or path_of(section.optional_text("records")) or (),
        params=params,
        filters=_templates(section, "filters", settings, secrets_allowed=False),
        lower=lower,
        upper=_bound(section, "upper", cursor),
        history=history or None,
        pager=(asked and asked.pager) or pager,
        body=section.tree("body"),
        query=asked.query if asked else None,
        inside=asked.inside if asked else "",
        parent=parent,
        changes=read_changes(section),
        empty=_empty(section),
        page_size=next(iter(sized.values()), None),
    )
    section.finish()
    _check_stream(section, made)
    check_asked(section, made)
    check_bodies(section, made, settings)
    return made


def _page_size(section: Section | None, pager: PagerDeclaration) -> dict[str, int]:
    """Return the parameter that asks for the page size. Raises InvalidInput for pages too small for the pager."""
    if section is None:
        return {}
    size, counted = section.integer("value", least=1), pager.within or pager
    if size == 1 and counted.kind is PagerKind.OFFSET and not counted.stable:
        problem = "leaves no room for the record that each page of an offset pager repeats"
        raise section.refuse("value", problem, "Write 2 or more; the larger, the fewer requests.")
    made = {section.text("param"): size}
    section.finish()
    return made


def _address(section: Section, settings: Mapping[str, str | None], default: str | None) -> str:
    if default is not None and "path" not in section:
        return default
    return _template(section, "path", settings, secrets_allowed=False)


def _check_stream(section: Section, made: StreamDeclaration) -> None:
    if made.method not in METHODS:
        raise section.refuse("method", "is unknown", suggest(made.method, METHODS))
    if made.parent is not None and not made.path:
        return
    if not made.path.startswith("/"):
        raise section.refuse("path", "does not start with '/'", "Write the path after base_url, such as /v1/orders.")
    if "?" in made.path or "#" in made.path:
        raise section.refuse("path", "holds more than a path", "Write parameters under `params:`.")
    _check_paths(section, made)
    if made.pager.kind is PagerKind.LAST_ID and len(made.stream.key) != 1:
        raise section.refuse("pager", "pages by the last id, but the key has several fields", "Declare one key field.")
    if made.pager.kind is PagerKind.LINK and made.method == "POST":
        raise section.refuse("pager", "follows links, which carry no body", "Use method GET.")
    bounds = [bound.param for bound in (made.lower, made.upper) if bound is not None]
    sent = [*made.params, *made.filters, *bounds, made.pager.param]
    if made.pager.within is not None:
        sent.append(made.pager.within.param)
    if made.changes is not None and made.changes.param != made.pager.param:  # some sources have one token for both
        sent.append(made.changes.param)
    for param in sent:
        if param and sent.count(param) > 1:
            problem = f"and the rest of the stream name {param!r} more than once: it would be sent twice"
            raise section.refuse("params", problem, "Name it in one place: `params`, `filters`, a bound or the pager.")


def _check_paths(section: Section, made: StreamDeclaration) -> None:
    pager = made.pager.within or made.pager
    changes = (made.changes.token, made.changes.removed) if made.changes is not None else ()
    places = (pager.token, pager.has_more, pager.total_pages, pager.total_records, *changes)
    told = list(dict.fromkeys(place for place in places if place is not None and not isinstance(place, InHeader)))
    if told and not made.records:
        raise section.refuse(
            "pager",
            "reads the reply's members, but the reply is a list itself",
            "Declare `records:`, or a header: `{header: NAME}`.",
        )
    paths = [made.records, *told]
    for outer, inner in permutations(paths, 2):
        if outer and inner[: len(outer)] == outer:
            raise section.refuse(
                "pager", f"reads {'.'.join(inner)!r} inside {'.'.join(outer)!r}", "Declare paths beside each other."
            )


def _columns(section: Section) -> dict[str, ColumnType]:
    columns = section.section("columns")
    if columns is None:
        return {}
    return {name: columns.choice(name, ColumnType) for name in columns}


def _cursor(section: Section) -> CursorField:
    kind = section.choice("format", CursorFormat, CursorFormat.ISO)
    least = FORMAT_GRAIN[kind]
    default = max(least, SECOND) if kind is not CursorFormat.EPOCH_MILLISECONDS else least
    precision = section.seconds("precision_seconds", default.total_seconds(), least=0.000001)
    if precision < least:
        raise section.refuse(
            "precision_seconds", f"is finer than {kind} can write", f"Write {least.total_seconds():g} or more."
        )
    _require_zone(section, kind)
    cursor = CursorField(
        path=tuple(section.text("field").split(".")),
        format=kind,
        time_zone=_zone(section, "Etc/UTC"),
        precision=precision,
        changes=section.flag("changes", True),
        ascending=section.flag("ascending", False),
    )
    section.finish()
    return cursor


def _require_zone(section: Section, kind: CursorFormat) -> None:
    """Raise InvalidInput for wall time or a date without its zone: taken for another one's, it is off by hours (HOLE i)."""
    if kind in ON_THE_WALL and "time_zone" not in section:
        raise section.refuse(
            "time_zone",
            f"is missing, without which {kind} is no instant",
            "Write the zone of the platform or its shop; Etc/UTC only if it says that its times are UTC or GMT.",
        )


def _zone(section: Section, default: str) -> str:
    return find_zone(section.text("time_zone", default), section.field("time_zone")).name


def _bound(stream: Section, key: str, cursor: CursorField | None) -> BoundParam | None:
    section = stream.section(key)
    if section is None:
        return None
    if cursor is None:
        raise stream.refuse(key, "bounds a stream that has no cursor", "Declare `cursor:` or remove it.")
    kind = section.choice("format", CursorFormat, cursor.format)
    least = max(FORMAT_GRAIN[kind], cursor.precision)
    if cursor.format not in ON_THE_WALL and "time_zone" not in stream.required_section("cursor"):
        _require_zone(section, kind)
    grain = section.seconds("grain_seconds", least.total_seconds())
    bound = BoundParam(
        param=section.text("param"),
        meaning=section.choice("meaning", Meaning),
        format=kind,
        grain=max(grain, least),
        time_zone=_zone(section, cursor.time_zone),
        number=section.flag("number", False),
        value=_around_the_instant(section),
    )
    if bound.number and kind not in (CursorFormat.EPOCH_SECONDS, CursorFormat.EPOCH_MILLISECONDS):
        raise section.refuse("number", f"cannot be where the format is {kind}", "Use it with an epoch format.")
    if bound.number and bound.value != INSTANT:
        raise section.refuse("number", "cannot be with text around the instant", "Leave out `number:` or `value:`.")
    section.finish()
    return bound


def _around_the_instant(section: Section) -> str:
    value = section.text("value", INSTANT)
    if value.count(INSTANT) != 1 or PLACEHOLDER.search(value):
        problem = f"does not hold {INSTANT} once, and no setting"
        raise section.refuse("value", problem, f'Write {INSTANT} where the instant belongs, such as ">={INSTANT}".')
    return value


def _empty(section: Section) -> frozenset[EmptyForm]:
    forms = ["null" if item is None else str(item) for item in section.items("empty")]
    known = [form.value for form in EmptyForm]
    for form in forms:
        if form not in known:
            raise section.refuse("empty", f"holds {form!r}, which is unknown", suggest(form, known))
    return frozenset(EmptyForm(form) for form in forms)
