"""The stage of the loss proof, for holes whose scenario is a story of its own."""

from __future__ import annotations

from tests.loss.conftest import quiet, stage_url

__all__ = ["quiet", "stage_url"]
