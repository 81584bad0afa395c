"""The pages that people follow: the guide is executed, the references name everything there is."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from tests.cli.conftest import CommandLine
from tests.simulated import SimulatedClock
from tidegate.cli.main import COMMANDS, LazyGroup
from tidegate.connectors.registry import find_connector
from tidegate.domain.errors import DestinationUnavailable
from tidegate.engine.configuring.configuration import load, read_file
from tidegate.engine.parts import Parts
from tidegate.store.retention import kept_for
from tidegate.store.seal import Sealer

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guides/first-sync.md"
CONFIGURATION = ROOT / "docs/reference/configuration.md"
COMMANDS_PAGE = ROOT / "docs/reference/cli.md"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "@@@"


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Return the page's code blocks as (language, file name, text)."""
    return BLOCK.findall(page.read_text("utf-8"))


def test_the_guide_does_what_it_says(cli: CommandLine) -> None:
    """Every file is written and every command executed, in order; what it shows must come out."""
    port = free_port()
    steps: list[tuple[str, list[str]]] = []
    for language, name, text in blocks(GUIDE):
        if name:
            (cli.folder / name).write_text(text.replace("8099", port))
        if language == "console":
            for line in text.replace("8099", port).splitlines():
                if line.startswith("$ "):
                    steps.append((line[2:], []))
                else:
                    steps[-1][1].append(line)
    assert len(steps) > 8
    outputs = in_one_shell([command for command, _ in steps], cli)
    for (command, expected), output in zip(steps, outputs, strict=True):
        missing = [line for line in expected if line not in output]
        assert not missing, f"$ {command}\n{output}"


def in_one_shell(commands: list[str], cli: CommandLine) -> list[str]:
    """Return what each command prints; the first that fails ends it all."""
    script = "set -e\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n"
    for command in commands:
        waits = command.endswith("&")
        script += f"{command} >/dev/null 2>&1 &\n" if waits else f"{command}\n"
        script += f"echo {MARK}\n"
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TIDEGATE_DATABASE_URL": cli.environment["TIDEGATE_DATABASE_URL"],
        "HOME": str(cli.folder),
    }
    script = script.replace(
        "&\necho",
        "&\n" + f"until (exec 3<>/dev/tcp/127.0.0.1/{port_in(cli)}) 2>/dev/null; do sleep 0.05; done\necho",
        1,
    )
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=cli.folder,
        env=environment,
        text=True,
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split(MARK)[: len(commands)]


def port_in(cli: CommandLine) -> str:
    found = re.search(r'127\.0\.0\.1", (\d+)', (cli.folder / "source.py").read_text())
    assert found is not None
    return found[1]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def offline_parts() -> Parts:
    async def away(*_: object) -> Any:
        raise DestinationUnavailable("no network in this test")

    nothing = cast(Any, None)
    return Parts(
        pool=nothing, clock=SimulatedClock(), session=nothing, sealer=Sealer(bytes(32)), connector=find_connector,
        open_destination=away, chance=lambda: 0.5, worker="test",
    )  # fmt: skip


class AnyVariable(dict[str, str]):
    """An environment in which every variable is set."""

    def get(self, key: str, default: Any = None) -> Any:
        return "x"


@pytest.mark.parametrize("name", ["examples/tidegate.yaml", "docs/reference/configuration.md"])
def test_the_examples_are_right(tmp_path: Path, name: str) -> None:
    """With the real connectors: streams, settings and secrets are those they know."""
    path = ROOT / name
    if path.suffix == ".md":
        ((_, _, text),) = [block for block in blocks(path) if block[1] == "tidegate.yaml"]
        path = tmp_path / "tidegate.yaml"
        path.write_text(text)
    configuration = asyncio.run(load([read_file(path)], AnyVariable(), offline_parts()))
    assert configuration.tenants[0].installations[0].schedule.time_zone == "Europe/London"


def test_the_configuration_page_names_every_key_and_every_variable() -> None:
    """A key that the reader knows, or a variable in the source, is on the page; and no other variable is."""
    page = CONFIGURATION.read_text("utf-8")
    reader = (ROOT / "src/tidegate/engine/configuring/configuration.py").read_text("utf-8")
    keys = {key for call in re.findall(r"require_known\(([^)]*)\)", reader) for key in re.findall(r'"(\w+)"', call)}
    assert len(keys) > 15
    assert [
        key for key in sorted(keys) if f"`{key}" not in page and f"`{key}." not in page and f"{key}:" not in page
    ] == []
    source = "".join(path.read_text("utf-8") for path in (ROOT / "src/tidegate").rglob("*.py"))
    variable = re.compile(r"\bTIDEGATE_[A-Z_]+[A-Z]\b")
    kept = {f"TIDEGATE_KEEP_{what.upper()}_DAYS" for what in kept_for()}
    assert set(variable.findall(page)) == set(variable.findall(source)) | kept


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("schedule", "connector")])
def test_the_commands_page_names_every_option(name: str) -> None:
    """Of every command that is described there."""
    page = COMMANDS_PAGE.read_text("utf-8")
    section = next(part for part in page.split("\n### ") if f"`tidegate {name}" in part.partition("\n")[0])
    command = LazyGroup(name="tidegate").get_command(None, name)
    assert command is not None
    parameters = [option for each in getattr(command, "commands", {"": command}).values() for option in each.params]
    options = [option for parameter in parameters for option in parameter.opts if option.startswith("--")]
    assert options
    assert [option for option in options if option not in section] == []
