"""A real authorisation server for every test that asks: the npm package oidc-provider, run by node."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

PACKAGE = "oidc-provider@9.13.3"
SECRET = "s3cr3t p+ss/w&rd:% 0123456789"


class AuthorisationServer:
    """oidc-provider in a process of its own, and the resource server that takes its tokens."""

    def __init__(self, port: str) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def do(self, what: str) -> dict[str, object]:
        """Do what provider.mjs lists, from outside, such as ``withdraw``."""
        with urlopen(Request(f"{self.url}/_test/{what}", method="POST"), timeout=60) as response:
            answer: dict[str, object] = json.load(response)
        return answer

    def authorise(self) -> str:
        """Return the first refresh token of a new authorisation."""
        return str(self.do("authorise")["refresh_token"])

    def until_held(self) -> None:
        """Return as soon as a token request is held up."""
        self.do("until_held")

    @property
    def log(self) -> list[dict[str, object]]:
        """Return the token requests so far."""
        with urlopen(f"{self.url}/_test/log", timeout=10) as response:
            entries: list[dict[str, object]] = json.load(response)
        return entries

    @property
    def statuses(self) -> list[object]:
        """Return how the token requests so far were answered."""
        return [entry["status"] for entry in self.log]


@pytest.fixture(scope="session")
def oidc_provider(request: pytest.FixtureRequest) -> Path:
    """The folder of the installed package; fetched once into .cache, fails if it cannot be had."""
    folder = request.config.rootpath / ".cache" / "oidc-provider"
    wanted = folder / "node_modules" / "oidc-provider" / "package.json"
    if not wanted.exists() or json.loads(wanted.read_text())["version"] != PACKAGE.partition("@")[2]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text("{}")
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock", PACKAGE]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            pytest.fail(f"{PACKAGE} is needed and npm does not run: {error}")
        if done.returncode != 0:
            pytest.fail(f"{PACKAGE} is needed and npm cannot fetch it: {done.stderr.strip()}")
    return folder


@pytest.fixture(scope="session")
def running_server(oidc_provider: Path) -> Iterator[AuthorisationServer]:
    """The server's process."""
    command = ["node", str(Path(__file__).with_name("provider.mjs")), str(oidc_provider)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port.isdigit(), "oidc-provider did not start"
        try:
            yield AuthorisationServer(port)
        finally:
            process.kill()
            process.wait(10)


@pytest.fixture
def server(running_server: AuthorisationServer) -> AuthorisationServer:
    """An authorisation server that nobody has asked yet."""
    running_server.do("reset")
    return running_server
