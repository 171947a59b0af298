"""The log: one line an action with its reason. For people key=value, for programs JSON."""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal

import structlog

from swanmesh.hooks.process import HookRun
from swanmesh.hooks.runner import HookNotice

Format = Literal["auto", "console", "json"]

_PRIORITY = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>", "critical": "<2>"}
"""What the journal takes from a line's head for its priority: sd-daemon(3)."""


def configure(level: str, form: Format) -> None:
    """Write to standard error. In the journal each line has its priority, which the level is for, and those
    for people begin with the event, since the journal has the time."""
    journal = _to_journal()
    render: structlog.typing.Processor
    if form == "json":
        render = structlog.processors.JSONRenderer()
    elif journal:
        render = structlog.processors.LogfmtRenderer(key_order=["event"])
    elif sys.stderr.isatty():
        render = structlog.dev.ConsoleRenderer(pad_event_to=0, exception_formatter=_one_line)
    else:
        render = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])

    def with_priority(
        logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
    ) -> str:
        priority = _PRIORITY[event["level"]]
        if form != "json":
            del event["level"], event["timestamp"]
        return f"{priority}{render(logger, method, event)!s}"

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            with_priority if journal else render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def complain(problem: object) -> None:
    """Why the service does not run, where there is no log yet."""
    print(f"{_PRIORITY['error'] if _to_journal() else ''}swanmesh: {problem}", file=sys.stderr)


def hooks(report: HookRun | HookNotice) -> None:
    """One line for the end of a run, with all that it wrote, or for a file that is not run."""
    log = logger()
    if isinstance(report, HookNotice):
        level = log.debug if report.harmless else log.warning
        level("hooks", path=str(report.path), notice=report.message)
        return
    event = report.turn.event
    details = {
        "hook": report.hook.name,
        "told": event.kind,
        "peer": event.peer,
        "status": report.status,
        "seconds": round(report.seconds, 3),
        "output": "\n".join(report.output),
    }
    if report.error:
        log.error("hook failed", error=report.error, **details)
    else:
        log.info("hook done", **details)


def _to_journal() -> bool:
    """Whether standard error is the journal's: systemd names its socket, which children inherit also where
    they write elsewhere (JOURNAL_STREAM in systemd.exec(5))."""
    written = os.fstat(sys.stderr.fileno())
    return os.environ.get("JOURNAL_STREAM") == f"{written.st_dev}:{written.st_ino}"


def _one_line(stream: object, exc_info: object) -> None:
    structlog.dev.plain_traceback(stream, exc_info)  # type: ignore[arg-type]


def logger() -> structlog.typing.FilteringBoundLogger:
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return log
