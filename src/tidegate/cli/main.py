"""The root command: finds each command's module when it is asked for, and not before."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
import typer.core

from tidegate.cli.host_clock import HostClock
from tidegate.cli.output import BAD_INPUT, FAILED

COMMANDS = {
    "demo": "demo",
    "up": "up",
    "apply": "apply",
    "run": "run",
    "tick": "tick",
    "status": "status",
    "runs": "runs",
    "coverage": "coverage",
    "query": "query",
    "backfill": "backfill",
    "waive": "waive",
    "alerts": "alerts",
    "quarantine": "quarantine",
    "pause": "pausing",
    "resume": "pausing",
    "webhook": "webhook",
    "worker": "worker",
    "schedule": "schedule",
    "connector": "connector",
    "doctor": "doctor",
    "metrics": "metrics",
    "retention": "retention",
    "export": "moving",
    "import": "moving",
    "backup": "backup",
    "restore": "backup",
    "stop": "backup",
}
"""Command -> the module in this package whose `app` holds it, in the order of the help text."""


_OF_THE_ROOT = ("install_completion", "show_completion")
"""Options that a module's `app` would have if it were the whole command line."""


UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""What every mistake in the usage of a command is; its class has moved between releases of typer."""


class LazyGroup(typer.core.TyperGroup):
    """A group whose commands are imported when they are asked for."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command that ``args`` name and exit; with ``--json`` among them bad usage is told as JSON too."""
        words = list(sys.argv[1:] if args is None else args)
        if not standalone_mode or "--json" not in words:
            return super().main(args, prog_name, complete_var, standalone_mode, windows_expand_args, **extra)
        try:
            ended = super().main(words, prog_name, complete_var, False, windows_expand_args, **extra)
        except UsageError as error:
            _fail_as_json(error)
        except typer.Abort:
            sys.exit(FAILED)
        sys.exit(ended if isinstance(ended, int) else 0)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name, None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"tidegate.cli.{COMMANDS[cmd_name]}")
        found = typer.main.get_command(module.app)
        found = getattr(found, "commands", {}).get(cmd_name, found)  # a module of several commands
        found.name = cmd_name
        found.params = [option for option in found.params if option.name not in _OF_THE_ROOT]
        return found


def _fail_as_json(error: Any) -> NoReturn:
    """Print bad usage as one JSON object on stderr, as any other error, and exit with 2."""
    import msgspec

    from tidegate.domain.masking import Mask

    command = error.ctx.command_path if error.ctx is not None else "tidegate"
    names = getattr(getattr(error, "param", None), "opts", None) or [getattr(error, "option_name", "")]
    told = {
        "code": "bad_usage",
        "message": error.format_message(),
        "remedy": f"`{command} --help` says what it takes.",
        "field": names[0] or "",
    }
    typer.echo(msgspec.json.encode(Mask().value(told)).decode(), err=True)
    sys.exit(BAD_INPUT)


app = typer.Typer(
    name="tidegate",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tidegate {version('tidegate')}")
        raise typer.Exit


@app.callback()
def tidegate(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Scheduled sync that can prove nothing was missed.

    Exit codes: 0 done, 1 the work failed, 2 bad usage or input.
    """
    context.obj = HostClock()


def main() -> None:
    """Run the command line."""
    app()
