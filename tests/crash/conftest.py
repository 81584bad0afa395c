"""Tests here kill processes: they need a server, a template, and time."""

from __future__ import annotations

import asyncio

import pytest

from tests.crash.harness import Form
from tests.crash.kills import reconnoitre
from tests.crash.plan import Trace


@pytest.fixture(scope="session")
def traces(
    postgres: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[Form, tuple[Trace, Trace]]:
    """The points that a calm process passes in its first round and in a later one, by form."""

    async def calm() -> dict[Form, tuple[Trace, Trace]]:
        return {
            form: await reconnoitre(
                postgres, f"calm_{form.name.lower()}", migrated_template, tmp_path_factory.mktemp("calm"), form
            )
            for form in Form
        }

    return asyncio.run(calm())
