"""Alerts: what a person should look at; each is raised once and resolved when its cause is gone (SPEC 5, "Failures")."""

from __future__ import annotations

from enum import StrEnum


class Severity(StrEnum):
    """Whether records stay away already."""

    WARNING = "warning"
    CRITICAL = "critical"


class AlertKind(StrEnum):
    """What has happened; the docs say what raises and resolves each (docs/guides/failures.md)."""

    CONNECTION_UNAUTHORISED = "connection_unauthorised"
    PAUSED_BY_FAILURES = "paused_by_failures"
    FAILING = "failing"
    STALE = "stale"
    QUARANTINE_GREW = "quarantine_grew"
    DEAD_LETTER = "dead_letter"
    UNPROVEN = "unproven"
    QUEUE_STARVED = "queue_starved"
