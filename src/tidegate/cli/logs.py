"""What the engine logs: for people at a terminal, JSON lines otherwise; secrets are masked in both."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import structlog

from tidegate.domain.masking import Mask


class _Stderr:
    """Writes to what is stderr at that moment: a live screen takes its place to keep log lines above itself."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def set_up(*, as_json: bool, mask: Mask | None = None) -> None:
    """Send log lines to stderr: as JSON if asked for or if stderr is no terminal, readable otherwise.

    ``mask`` takes the secrets out of every line; by default those that are known by their name or form.
    """
    as_json = as_json or not sys.stderr.isatty()
    hide = (mask or Mask()).value

    def masked(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {key: hide(value, str(key)) for key, value in event.items()}

    stamped: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # An exception is plain text, without the values of local variables, and masked like the rest.
    shown: list[Any] = [structlog.processors.format_exc_info, masked]
    shown.append(structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(pad_event_to=20))
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
