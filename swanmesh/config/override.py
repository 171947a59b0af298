"""Records in the service's own folder (`state:`) of what holds instead of the files: a policy on trial, and
`disable`.

Commands write them, whole and one at a time; the service reads them, and forgets a trial that is over. A
trial's clock survives a boot: see `core/settings/override`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from swanmesh.core.model import InvalidInput, Problem
from swanmesh.core.settings.override import Override, Trial, left
from swanmesh.core.settings.policy import Policy
from swanmesh.files.lock import locked
from swanmesh.files.read import read_trusted
from swanmesh.files.write import Change, make_folder, write_whole

_LIMIT = 4 * 1024 * 1024
"""Bytes: a trial that names ten thousand peers takes some 400 KiB."""
_TRIAL, _DISABLED = "trial.json", "disabled.json"


class TrialRecord(msgspec.Struct, kw_only=True, frozen=True):
    """A policy on trial. Times in seconds."""

    policy: Policy
    before: dict[str, Policy | None]
    """See `Trial.before`."""
    within: float
    began: float
    """On the wall's clock; `began_slept` on the one that counts since boot."""
    began_slept: float

    def left(self) -> float:
        """Seconds until it is over; none if it is."""
        slept = time.clock_gettime(time.CLOCK_BOOTTIME) - self.began_slept
        return left(self.within, slept=slept, wall=time.time() - self.began)

    @property
    def due(self) -> float:
        """When it is over, on the wall's clock."""
        return self.began + self.within


class DisabledRecord(msgspec.Struct, kw_only=True, frozen=True):
    """That `disable` holds."""

    since: float
    """In seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the records say now."""

    trial: TrialRecord | None = None
    """It may be over."""
    disabled: DisabledRecord | None = None

    def in_force(self) -> Override:
        """As the core has it."""
        trial = None
        if self.trial is not None and self.trial.left():
            trial = Trial(policy=self.trial.policy, before=self.trial.before)
        return Override(disabled=self.disabled is not None, trial=trial)


def records(folder: Path) -> tuple[Path, Path]:
    """Where they lie, for who watches them."""
    return folder / _TRIAL, folder / _DISABLED


_Record = TypeVar("_Record", TrialRecord, DisabledRecord)


def read_overrides(folder: Path) -> Overrides:
    """Raises InvalidInput if a record cannot be read, or others could have written it."""
    return Overrides(
        trial=_read(folder / _TRIAL, TrialRecord), disabled=_read(folder / _DISABLED, DisabledRecord)
    )


def begin_trial(folder: Path, policy: Policy, before: dict[str, Policy | None], within: float) -> TrialRecord:
    """Record a trial of `within` seconds. Raises InvalidInput if another is under way, and NotWritten."""
    make_folder(folder, 0o700)
    with locked(folder):
        other = read_overrides(folder).trial
        if other is not None and other.left():
            message = f"another change of policy is on trial, of {other.policy}"
            remedy = "run `swanmesh policy confirm` or `swanmesh policy cancel` first"
            raise InvalidInput(Problem(str(folder / _TRIAL), "", "", message, remedy))
        record = TrialRecord(
            policy=policy,
            before=before,
            within=within,
            began=time.time(),
            began_slept=time.clock_gettime(time.CLOCK_BOOTTIME),
        )
        _write(folder / _TRIAL, record)
    return record


def end_trial(folder: Path) -> None:
    """Forget it, if there is one. Raises NotWritten and InvalidInput."""
    _remove(folder / _TRIAL)


def forget_trial(folder: Path, ended: TrialRecord) -> None:
    """Remove the record of this trial, if nobody is writing just now. It counts for nothing either way; but
    its clocks could be set back one day."""
    with contextlib.suppress(OSError, InvalidInput):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if read_overrides(folder).trial == ended:
                (folder / _TRIAL).unlink(missing_ok=True)
        finally:
            os.close(fd)


def disable(folder: Path) -> bool:
    """Record that nothing of ours holds. Returns False if it is recorded already. Raises NotWritten and
    InvalidInput."""
    make_folder(folder, 0o700)
    with locked(folder):
        if read_overrides(folder).disabled is not None:
            return False
        _write(folder / _DISABLED, DisabledRecord(since=time.time()))
    return True


def enable(folder: Path) -> bool:
    """Forget that. Returns False if it was not so. Raises NotWritten and InvalidInput."""
    return _remove(folder / _DISABLED)


def _read(path: Path, kind: type[_Record]) -> _Record | None:
    if not os.path.lexists(path):
        return None
    try:
        return msgspec.json.decode(read_trusted(path, _LIMIT), type=kind)
    except msgspec.MsgspecError as error:
        problem = Problem(str(path), "", "", f"says nothing valid: {error}", "remove it")
        raise InvalidInput(problem) from None


def _write(path: Path, record: TrialRecord | DisabledRecord) -> None:
    write_whole([Change(path=path, content=msgspec.json.encode(record), mode=0o600)])


def _remove(path: Path) -> bool:
    if not os.path.lexists(path):
        return False
    with locked(path.parent):
        if not os.path.lexists(path):
            return False
        write_whole([Change(path=path, content=None)])
    return True
