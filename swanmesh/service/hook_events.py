"""From the event stream to hooks, and from hooks to the log."""

from __future__ import annotations

import msgspec
import structlog

from swanmesh.config.settings import Config
from swanmesh.control.protocol import EventRecord
from swanmesh.hooks.runner import HookEvent, HookNotice, HookReport, Hooks

STOP_TIME = 10.0
"""Seconds that hooks have in all when the service stops; the unit's TimeoutStopSec leaves room for them."""


def make_hooks(config: Config, log: structlog.typing.FilteringBoundLogger) -> Hooks:
    """Hooks of this configuration, whose ends are told to the log."""
    return Hooks(config.hooks, report=lambda report: log_report(log, report), environment=config.environment)


def follow_config(hooks: Hooks, config: Config) -> None:
    """From the next event on."""
    hooks.directory, hooks.environment = config.hooks, config.environment


def tell_hooks(hooks: Hooks, record: EventRecord) -> None:
    """Every record of the event stream but single actions, in the words of the stream."""
    if record.event != "action":
        hooks.submit(HookEvent.from_record(msgspec.json.encode(record)))


def log_report(log: structlog.typing.FilteringBoundLogger, report: HookReport) -> None:
    """One line for the end of a run, one for each line that it wrote, one for each file that is not run."""
    if isinstance(report, HookNotice):
        level = log.debug if report.harmless else log.warning
        level("hooks", path=str(report.path), notice=report.message)
        return
    told = {"hook": report.hook.name, "told": report.event.event, "peer": report.event.peer}
    for line in report.output:
        log.info("hook says", line=line, **told)
    ended = {**told, "status": report.status, "seconds": round(report.seconds, 3)}
    if report.error:
        log.error("hook failed", error=report.error, **ended)
    else:
        log.info("hook done", **ended)
