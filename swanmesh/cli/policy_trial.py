"""`policy confirm` and `policy cancel`, and what all that writes policies has in common."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from swanmesh.cli.failures import ExitStatus, Failure, complain
from swanmesh.cli.output import say, say_json
from swanmesh.cli.policy_report import listed
from swanmesh.config.entry_files import peer_directory
from swanmesh.config.override import TrialRecord, end_trial, read_overrides
from swanmesh.config.policies import write_policies
from swanmesh.control.client import RequestRefused, ServiceTimeout, ServiceUnreachable
from swanmesh.core.model import InvalidInput
from swanmesh.core.settings.override import HOST
from swanmesh.core.settings.policy import Policy
from swanmesh.files.lock import locked

if TYPE_CHECKING:
    from swanmesh.cli.setup import Setup
    from swanmesh.config.sections import Config

PATIENCE = 10.0
"""Seconds that the service has for a policy to be in force."""


def confirm_trial(setup: Setup, as_json: bool) -> int:
    """The files first, then the record goes: killed in between, the files hold. Does without a service."""
    config = setup.config
    record = _on_trial(config.state)
    with writing(config, host=HOST in record.before, peers=record.before.keys() != {HOST}):
        files, stated = _files(config, record)
        _check_unchanged(record, stated)
        written = write_policies(files)
    end_trial(config.state)
    untold = tell_all(setup)
    if as_json:
        say_json({"policy": record.policy, "files": list(map(str, written)), "service": untold is None})
    else:
        say(f"{record.policy} stays; written to {listed(map(str, written))}")
    if untold is not None:
        complain(f"the service does not run: {untold}")
    return ExitStatus.DONE


def _files(config: Config, record: TrialRecord) -> tuple[dict[Path, Policy], dict[str, Policy | None]]:
    """The files of what is on trial with the policy that they get, and what they state now."""
    files: dict[Path, Policy] = {}
    stated: dict[str, Policy | None] = {}
    if HOST in record.before:
        files[config.path], stated[HOST] = record.policy, config.policy
    for peer in peer_directory(config.peers).scan().entries.values():
        if peer.name in record.before:
            files[Path(peer.source)], stated[peer.name] = record.policy, peer.policy
    return files, stated


def _check_unchanged(record: TrialRecord, stated: Mapping[str, Policy | None]) -> None:
    """Raises Failure if somebody wrote another policy meanwhile, or took the peer away."""
    changed = [
        f"{name or 'this host'}: its policy is no longer as it was when the trial began"
        for name, before in record.before.items()
        if name not in stated or stated[name] not in (before, record.policy)
    ]
    if changed:
        remedy = "nothing was written; run `swanmesh policy cancel`, then `swanmesh policy set` again"
        raise Failure(ExitStatus.FAILED, *changed, remedy)


def cancel_trial(setup: Setup, as_json: bool) -> int:
    """The record goes, without a service too."""
    folder = state_folder(setup)
    record = _on_trial(folder)
    end_trial(folder)
    untold = tell_all(setup)
    settled = untold is None and all(p.settled for p in setup.client.policy(settle=PATIENCE).peers)
    if as_json:
        say_json({"policy": record.policy, "service": untold is None, "in_force": settled})
    else:
        say(f"{record.policy} is no longer on trial: what the files say holds again")
    if untold is not None:
        raise untold
    if not settled:
        complain("not in force yet for all peers; see `swanmesh policy report`")
    return ExitStatus.DONE if settled else ExitStatus.TIMED_OUT


def _on_trial(folder: Path) -> TrialRecord:
    """Raises Failure if nothing is."""
    record = read_overrides(folder).trial
    if record is None:
        raise Failure(ExitStatus.FAILED, "no policy is on trial")
    if not record.left():
        at = time.strftime("%H:%M:%S", time.localtime(record.due))
        raise Failure(ExitStatus.FAILED, f"no policy is on trial: {record.policy} went back at {at}")
    return record


def state_folder(setup: Setup) -> Path:
    """The service's own folder; by its own word where the file that tells it has mistakes."""
    try:
        return setup.config.state
    except InvalidInput:
        return Path(setup.client.policy().state)


def tell_all(setup: Setup) -> ServiceUnreachable | ServiceTimeout | RequestRefused | None:
    """Have the service read everything again. Returns why it could not be told, if so."""
    try:
        setup.client.reload(None)
    except (ServiceUnreachable, ServiceTimeout, RequestRefused) as error:
        return error
    return None


@contextlib.contextmanager
def writing(config: Config, *, host: bool, peers: bool) -> Iterator[None]:
    """Alone, in the folder of swanmesh.yaml, in that of the peers, or in both."""
    with contextlib.ExitStack() as locks:
        if host:
            locks.enter_context(locked(config.path.parent))
        if peers and not (host and config.peers == config.path.parent):
            locks.enter_context(locked(config.peers))
        yield
