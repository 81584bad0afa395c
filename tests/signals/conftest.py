"""The command line's fixtures serve here too."""

from __future__ import annotations

from tests.cli.conftest import api, cli, environment

__all__ = ["api", "cli", "environment"]
