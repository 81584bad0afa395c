"""Watching: every fact goes to every observer, and none of them can harm the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import structlog

from tidegate.engine.observing import Fact, Observe, unobserved
from tidegate.signals.requests import RequestSent

log = structlog.get_logger()

Seen: TypeAlias = Fact | RequestSent


class Observer(Protocol):
    """One who watches, such as `tidegate.signals.metrics.Metrics`."""

    def observe(self, fact: Seen) -> None:
        """Take notice of a fact; does no I/O."""
        ...


class Watch:
    """Tells all observers. What one raises is logged, once per kind of fact, and goes no further."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self._failed: set[tuple[type[Observer], type[Seen]]] = set()

    def __call__(self, fact: Seen) -> None:
        """Tell every observer of ``fact``."""
        for observer in self._observers:
            try:
                observer.observe(fact)
            except Exception:
                what = (type(observer), type(fact))
                if what not in self._failed:
                    self._failed.add(what)
                    log.exception("observer failed", observer=type(observer).__name__, fact=type(fact).__name__)


def watch(observers: Sequence[Observer]) -> Observe:
    """Return what the engine calls: without observers, the function that does nothing."""
    return Watch(observers) if observers else unobserved
