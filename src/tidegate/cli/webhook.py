"""`tidegate webhook`: what waits in the outbox, what is in the dead letter and why, how to send it again or drop it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, fail, instant, out, print_json, split_installation
from tidegate.cli.process import with_parts
from tidegate.domain.duration import humanised
from tidegate.domain.errors import InvalidInput
from tidegate.domain.outgoing import MessageState
from tidegate.store.messages import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rich.table import Table

    from tidegate.engine.parts import Parts
    from tidegate.store.messages import MessageRow

app = typer.Typer(help="Look at webhook messages, and send them again or drop them.", no_args_is_help=True)
Of = Annotated[str, typer.Argument(metavar="[TENANT[/INSTALLATION]]", help="Whose; default: all.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which messages.")]
OfInstallation = Annotated[str, typer.Option(metavar="TENANT/INSTALLATION", help="All of this installation.")]
OfStream = Annotated[str, typer.Option(metavar="NAME", help="Only this stream's.")]
Since = Annotated[str, typer.Option(metavar="T", help="Only those made at or after this instant.")]
Until = Annotated[str, typer.Option(metavar="T", help="Only those made before this instant.")]
Dead = Annotated[bool, typer.Option("--dead", help="Only those in the dead letter.")]


@app.callback()
def webhook() -> None:
    """Look at webhook messages, and send them again or drop them."""


@app.command("list")
def list_(
    of: Of = "",
    state: Annotated[list[MessageState] | None, typer.Option(help="Only in this state; repeatable.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List messages, newest first: where each stands, its attempts and the last answer."""
    _list(of, state or [], limit, as_json=as_json)


@app.command("dead-letters")
def dead_letters(of: Of = "", limit: Limit = 100, as_json: AsJson = False) -> None:
    """List what receivers have refused, or were away for too long to take, and nobody has dropped. Exit code 0 either way."""
    _list(of, [MessageState.DEAD], limit, as_json=as_json)


def _list(of: str, states: Sequence[MessageState], limit: int, *, as_json: bool) -> None:
    tenant_id, installation = _split(of, as_json=as_json)

    async def work(parts: Parts) -> list[MessageRow]:
        from tidegate.engine.commands import messages

        choice = Choice(states=states, tenant_id=tenant_id, installation=installation)
        return await messages.list_messages(parts, choice, limit)

    found = with_parts(work, as_json=as_json)
    if as_json:
        print_json(found)
    elif not found:
        out().print("No messages.")
    else:
        out().print(_table(found))


@app.command()
def show(message_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Show one message: where it stands, the last answer, and its body as it is sent."""

    async def work(parts: Parts) -> tuple[MessageRow, bytes]:
        from tidegate.engine.commands import messages

        return await messages.show(parts, message_id)

    found, body = with_parts(work, as_json=as_json)
    if as_json:
        import msgspec

        print_json({**msgspec.to_builtins(found), "body": msgspec.Raw(body)})
        return
    out().print(_table([found]))
    if found.answer:
        out().print(f"Last answer: {found.answer}", markup=False)
    if found.dropped_at:
        out().print(f"Dropped {instant(found.dropped_at)}: {found.dropped_reason}", markup=False)
    typer.echo(body.decode(errors="replace"))


@app.command()
def replay(
    ids: Ids = None,
    installation: OfInstallation = "",
    stream: OfStream = "",
    since: Since = "",
    until: Until = "",
    dead: Dead = False,
    as_json: AsJson = False,
) -> None:
    """Send messages again, in their order and under their ids: by id, or an installation's by the time they were made.

    What still waits is not touched, and what was dropped is sent only by its id. A receiver that keeps ids takes only what
    it does not have.
    """
    choice = _choice(ids, installation, stream, since, until, dead=dead, as_json=as_json)

    async def work(parts: Parts) -> int:
        from tidegate.engine.commands import messages

        return await messages.replay(parts, choice)

    count = with_parts(work, as_json=as_json)
    if as_json:
        print_json({"replayed": count})
    elif not count:
        out().print(
            "No settled message fits. What waits is sent without this; what was acknowledged is kept for a week by default."
        )
    else:
        out().print(f"{count} {'message is' if count == 1 else 'messages are'} sent again by the next sender.")


@app.command()
def drop(
    ids: Ids = None,
    installation: OfInstallation = "",
    stream: OfStream = "",
    since: Since = "",
    until: Until = "",
    dead: Dead = False,
    reason: Annotated[str, typer.Option("--reason", help="Why they are not wanted; kept with when.")] = "",
    as_json: AsJson = False,
) -> None:
    """Give messages up, all or none: by id, or with --dead an installation's. What still waits is not sent any more.

    What comes behind them goes on, and they are no alert. Coverage still counts them as not acknowledged, and a replay by
    id brings one back.
    """
    choice = _choice(ids, installation, stream, since, until, dead=dead, as_json=as_json)

    async def work(parts: Parts) -> int:
        from tidegate.engine.commands import messages

        return await messages.drop(parts, choice, reason)

    count = with_parts(work, as_json=as_json)
    if as_json:
        print_json({"dropped": count})
    elif not count:
        out().print("No message in the dead letter fits.")
    else:
        out().print(f"{count} {'message' if count == 1 else 'messages'} dropped.")


def _choice(
    ids: list[str] | None, installation: str, stream: str, since: str, until: str, *, dead: bool, as_json: bool
) -> Choice:
    tenant_id, name = _split(installation, as_json=as_json)
    return Choice(
        ids=ids or [],
        states=[MessageState.DEAD] if dead else [],
        tenant_id=tenant_id,
        installation=name,
        stream=stream or None,
        since=_instant(since, "--since", as_json=as_json),
        until=_instant(until, "--until", as_json=as_json),
    )


def _split(of: str, *, as_json: bool) -> tuple[str | None, str | None]:
    try:
        return split_installation(of, whole=False) if of else (None, None)
    except InvalidInput as error:
        fail(error, as_json=as_json)


def _instant(text: str, name: str, *, as_json: bool) -> datetime | None:
    from tidegate.domain.schedule_document import parse_instant

    try:
        return parse_instant(text, name) if text else None
    except InvalidInput as error:
        fail(error, as_json=as_json)


def _table(found: Sequence[MessageRow]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("message", "stream", "position", "records", "made", "state", "attempts", "next attempt", "answer"):
        table.add_column(heading, overflow="fold")
    for each in found:
        waited = "" if each.settled_at is None else humanised((each.settled_at - each.created_at).total_seconds())
        table.add_row(
            each.message_id,
            escape(f"{each.tenant_id}/{each.installation} {each.stream}"),
            str(each.position),
            f"{each.records:,}",
            instant(each.created_at),
            f"{each.state} after {waited}" if waited else each.state,
            str(each.attempts),
            instant(each.next_attempt_at),
            escape((each.dropped_reason or each.answer)[:80]) or ("" if each.status is None else str(each.status)),
            style={MessageState.DEAD: "red", MessageState.OPEN: "yellow"}.get(each.state),
        )
    return table
