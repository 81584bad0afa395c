"""`tidegate backup`, `restore` and `stop`: the embedded server's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from tidegate.cli.output import AsJson, fail, out, print_json
from tidegate.domain.errors import InvalidInput, TidegateError

if TYPE_CHECKING:
    from tidegate.bootstrap import Options

app = typer.Typer()
Result = TypeVar("Result")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; must not exist.")],
    with_key: Annotated[
        bool, typer.Option("--with-key", help="Copy the key file to FILE.key too: it opens every secret in the backup.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Back up the embedded database while everything goes on working."""
    key_to = file.with_name(f"{file.name}.key") if with_key else None

    def work(options: Options) -> int:
        from tidegate.engine.commands import backup as engine
        from tidegate.store.seal import KEY_VARIABLE

        elsewhere = bool(options.key_source.get(KEY_VARIABLE))
        return engine.back_up(options.data_dir, file, key_to=key_to, key_elsewhere=elsewhere)

    size = _embedded(work, "pg_dump", as_json=as_json)
    if as_json:
        print_json({"file": str(file), "size_bytes": size, "key_file": None if key_to is None else str(key_to)})
        return
    out().print(f"Backed up into {file} ({size:,} bytes).", markup=False)
    if key_to is None:
        out().print("THE KEY IS NOT IN IT. Keep TIDEGATE_KEY or the data directory's file `key` elsewhere:")
        out().print("without it the secrets in this backup cannot be opened, and have to be applied anew.")
    else:
        out().print(f"{key_to} OPENS EVERY SECRET IN IT. Never keep the two in one place.", markup=False)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `tidegate backup` wrote.")],
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="The key file to put beside it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Restore a backup into an empty data directory."""

    def work(options: Options) -> Path:
        from tidegate.engine.commands import backup as engine

        engine.restore(options.data_dir, file, key_from=key)
        return options.data_dir

    data_dir = _embedded(work, "pg_restore", as_json=as_json)
    if as_json:
        print_json({"data_dir": str(data_dir)})
        return
    out().print(f"Restored into {data_dir}.", markup=False)
    out().print("What has been delivered since the backup is fetched again, and written only where it is newer.")
    out().print("Look with `tidegate doctor` whether the key opens the secrets, then start `tidegate up`.")


@app.command()
def stop(as_json: AsJson = False) -> None:
    """Stop the embedded server that killed processes have left running; refused while it is in use."""

    def work(options: Options) -> bool:
        from tidegate.engine.commands import backup as engine

        return engine.stop(options.data_dir)

    was_running = _embedded(work, "pg_ctl", as_json=as_json)
    if as_json:
        print_json({"stopped": was_running})
    else:
        out().print("Stopped." if was_running else "It was not running.")


def _embedded(work: Callable[[Options], Result], tool: str, *, as_json: bool) -> Result:
    """Return what ``work`` does with this process's options; an external database is refused, naming its own ``tool``."""
    from tidegate.bootstrap import DATABASE_VARIABLE, from_environment

    try:
        options = from_environment()
        if options.database_url is not None:
            raise InvalidInput(
                DATABASE_VARIABLE, "(hidden)", "is set: this is for the embedded server", f"Use {tool} with that one."
            )
        return work(options)
    except TidegateError as error:
        fail(error, as_json=as_json)
