"""`tidegate retention`: deletes what is old, as the engine does every hour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, out, print_json
from tidegate.cli.process import with_parts

if TYPE_CHECKING:
    from tidegate.engine.parts import Parts
    from tidegate.engine.retention import Pruned

app = typer.Typer()


@app.command()
def retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and delete nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what ended long ago; coverage stays. Engines do the same every hour."""

    async def work(parts: Parts) -> list[Pruned]:
        from tidegate.engine import retention as engine

        now = parts.clock.now()
        return await (engine.would_go(parts, now) if dry_run else engine.prune(parts, now))

    found = with_parts(work, as_json=as_json)
    if as_json:
        print_json(
            [
                {"what": one.what, "keep_days": None if one.keep is None else one.keep.days, "count": one.count}
                for one in found
            ]
        )
        return
    for one in found:
        kept = "kept for ever" if one.keep is None else f"kept for {one.keep.days} days"
        out().print(f"{one.what}: {one.count} {'would go' if dry_run else 'gone'} ({kept})", markup=False)
    if not found:
        out().print("Another process is at it.")
