"""The log: one line an action with its reason. key=value for people, JSON where a journal collects it."""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal

import structlog

Format = Literal["auto", "console", "json"]


def configure(level: str, form: Format) -> None:
    """Write to standard error. `auto`: JSON under systemd, which sets JOURNAL_STREAM for what it collects."""
    if form == "auto":
        form = "json" if os.environ.get("JOURNAL_STREAM") else "console"
    renderer: structlog.typing.Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    elif sys.stderr.isatty():
        renderer = structlog.dev.ConsoleRenderer(pad_event_to=0, exception_formatter=_one_line)
    else:
        renderer = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def _one_line(stream: object, exc_info: object) -> None:
    structlog.dev.plain_traceback(stream, exc_info)  # type: ignore[arg-type]


def logger() -> structlog.typing.FilteringBoundLogger:
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return log
