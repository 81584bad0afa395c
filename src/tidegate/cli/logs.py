"""What the engine logs: for people at a terminal, JSON lines otherwise; secrets are masked in both."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from datetime import timedelta
from typing import Any, TextIO, cast

import structlog

MASK = "***"
_SECRET_NAMES = re.compile(r"secret|token|password|passwd|authori[sz]ation|api_?key|credential|cookie", re.IGNORECASE)
_SECRET_TEXTS = (
    (re.compile(r"(\w[\w+.-]*://[^/\s:@]*):[^/\s@]+@"), rf"\1:{MASK}@"),
    (re.compile(r"\b(Bearer|Basic|Token)\s+[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1 {MASK}"),
    (
        re.compile(r"([?&](?:access_token|token|api_?key|key|signature|password)=)[^&\s\"']+", re.IGNORECASE),
        rf"\1{MASK}",
    ),
    (re.compile(r"\b(?:shp(?:at|ca|pa|ss)|[sr]k_(?:live|test))_\w{6,}"), MASK),
)


def masked(value: object, name: str = "") -> object:
    """Return ``value`` with what is secret by its name or its form replaced by a mask."""
    if name and _SECRET_NAMES.search(name) and isinstance(value, str) and value:
        return MASK
    if isinstance(value, str):
        for pattern, replacement in _SECRET_TEXTS:
            value = pattern.sub(replacement, value)
        return value
    if isinstance(value, dict):
        return {key: masked(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner) for inner in value]
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value


class _Stderr:
    """Writes to what is stderr at that moment: a live screen takes its place to keep log lines above itself."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _mask_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: masked(value, str(key)) for key, value in event.items()}


def set_up(*, as_json: bool) -> None:
    """Send log lines to stderr: as JSON if asked for or if stderr is no terminal, readable otherwise."""
    as_json = as_json or not sys.stderr.isatty()
    stamped: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    shown: list[Any] = (
        [structlog.processors.format_exc_info, _mask_event, structlog.processors.JSONRenderer(default=str)]
        if as_json
        else [
            structlog.processors.format_exc_info,  # plain, without the values of local variables, and masked like the rest
            _mask_event,
            structlog.dev.ConsoleRenderer(pad_event_to=20),
        ]
    )
    structlog.configure(
        processors=[*stamped, *shown],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(cast(TextIO, _Stderr())),
        cache_logger_on_first_use=False,
    )
    _take_in_libraries(stamped, shown)


def _take_in_libraries(stamped: list[Any], shown: list[Any]) -> None:
    """Give what libraries log, from warnings on, the same form and the same masks."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*stamped, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shown],
    )
    handler = logging.StreamHandler(cast(TextIO, _Stderr()))
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
