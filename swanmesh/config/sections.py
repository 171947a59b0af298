"""What `swanmesh.yaml` may hold: its sections, and for each key its kind and default.

A setting is one field here, or in the core's settings where decisions need it; all else follows from it.
"""

from __future__ import annotations

import grp
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from swanmesh.core.model import (
    DAY,
    Address,
    CertifiedAddresses,
    ConnectionSettings,
    Credentials,
    ExpiredLists,
    Host,
    InitiationSettings,
    ProbeSettings,
    Problem,
    Settings,
)
from swanmesh.core.peers.description import check_name, parse_addresses
from swanmesh.core.settings.exemptions import EXEMPTIONS, Exemption
from swanmesh.core.settings.policy import CHOICE, Policy, check_policy
from swanmesh.core.settings.setting import Checked, Choice, Count, Flag, ListOf, Misfit, Seconds

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]
EncapsulationSetting = Literal["auto", "always", "never"]
SegmentationSetting = Literal["auto", "off"]
_LONGEST_URL = 2048


@dataclass(frozen=True, slots=True)
class File:
    """A path; a relative one counts from the folder of `swanmesh.yaml`."""

    limit: int = 4095
    """Bytes of it, once it is absolute: PATH_MAX in linux/limits.h, without the final zero."""

    def read(self, value: object) -> Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise Misfit("must be a path", "give the path of a file or folder")
        return Path(value)


SOCKET = File(limit=107)
"""unix(7): bytes in a Unix socket's address, without the final zero."""


STATE = Path("/var/lib/swanmesh")
"""As StateDirectory in systemd/swanmesh.service; swanmesh-guard.service reads there."""


@dataclass(frozen=True, slots=True)
class FileOrUrl:
    """A path, or where something is fetched from by HTTP."""

    def read(self, value: object) -> Path | str:
        if not isinstance(value, str) or "://" not in value:
            return File().read(value)
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname or len(value) > _LONGEST_URL:
            raise Misfit("is no URL that can be fetched from", "write http://HOST/PATH or https://HOST/PATH")
        if not value.isascii() or not value.isprintable() or " " in value or url.username or url.password:
            raise Misfit("has what no URL here may have", "leave out spaces, names and passwords")
        return value


@dataclass(frozen=True, slots=True)
class Group:
    """A group of this machine, or none."""

    def read(self, value: object) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise Misfit("must be the name of a group", "write it in quotes")
        try:
            grp.getgrnam(value)
        except KeyError:
            raise Misfit("is no group here", f"run: groupadd --system {value}") from None
        except (UnicodeEncodeError, ValueError):
            raise Misfit("is no name of a group", "correct the value") from None
        return value


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses that other hosts can reach."""

    def read(self, value: object) -> tuple[Address, ...]:
        problems: list[Problem] = []
        addresses = parse_addresses(value, "", "", problems)
        if problems:
            misfits = [Misfit(p.message, p.remedy, p.key, p.value) for p in problems]
            raise ExceptionGroup("addresses", misfits)
        return addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSection(Host):
    name: Annotated[str, Checked(check_name, "give the name in its certificate")]
    addresses: Annotated[tuple[Address, ...], Addresses()]


@dataclass(frozen=True, slots=True)
class Program:
    """A program with its arguments, by its whole path: the service knows no PATH of anybody's."""

    def read(self, value: object) -> tuple[str, ...]:
        remedy = "write [/path/of/a/program, argument, …]"
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise Misfit("must be a list of a program and its arguments", remedy)
        if value and not value[0].startswith("/"):
            raise Misfit("must begin with the whole path of a program", remedy, "[0]", value[0])
        if any("\0" in word for word in value):
            raise Misfit("holds a zero byte, which no program can be given", remedy)
        return tuple(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsSection:
    certificate: Annotated[Path, File()]
    private_key: Annotated[Path, File()]
    authorities: Annotated[tuple[Path, ...], ListOf(File(), "files")]
    addresses: Annotated[CertifiedAddresses, Choice(("match", "ignore"))] = "match"
    crls: Annotated[tuple[Path | str, ...], ListOf(FileOrUrl(), "files and URLs", least=0)] = ()
    crl_refresh: Annotated[float, Seconds(1, DAY)] = 600.0
    """How often URLs are asked for a new one."""
    crl_expired: Annotated[ExpiredLists, Choice(("warn", "refuse"))] = "warn"


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalSection:
    command: Annotated[tuple[str, ...], Program()] = ()
    """Given a request for a certificate, it answers with one. Empty: nothing renews by itself."""
    time_limit: Annotated[float, Seconds(1, 3600)] = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CharonSection:
    socket: Annotated[Path, SOCKET] = Path("/run/charon.vici")
    timeout: Annotated[float, Seconds(0.1, 600)] = 10.0
    """After so long without a reply charon counts as hanging."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSection:
    socket: Annotated[Path, SOCKET] = Path("/run/swanmesh/control.sock")
    group: Annotated[str | None, Group()] = None
    """Members may use the control socket beside root; None admits root alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSection:
    level: Annotated[LogLevel, Choice(("debug", "info", "warning", "error"))] = "info"
    format: Annotated[LogFormat, Choice(("auto", "console", "json"))] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSection(ConnectionSettings):
    encapsulation: Annotated[EncapsulationSetting, Choice(("auto", "always", "never"))] = "never"
    encap: bool = False
    """Whether it is `always`; in files, an older name of the key for just that."""

    @property
    def settings(self) -> ConnectionSettings:
        """What all connections are made by."""
        names = (each.name for each in fields(ConnectionSettings))
        return ConnectionSettings(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPathSection:
    segmentation: Annotated[SegmentationSetting, Choice(("auto", "off"))] = "auto"
    """Whether the kernel's modules for segmentation through ESP are meant to be there."""
    path_mtu: Annotated[SegmentationSetting, Choice(("auto", "off"))] = "auto"
    """Whether paths that drop large packets and tell nobody are found, and made known to the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSection:
    allow: Annotated[bool, Flag()] = False
    """Whether peers may measure throughput with this host."""
    port: Annotated[int, Count(1024, 65535)] = 5200
    """Of TCP, where they ask for it, at each of this host's addresses; the same on every host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All that `swanmesh.yaml` says, checked. Paths are absolute, durations in seconds."""

    path: Path
    """The file itself."""
    host: HostSection
    credentials: CredentialsSection
    policy: Annotated[Policy, Checked(check_policy, f"write {CHOICE}")] = Policy.REQUIRE
    exempt: Annotated[tuple[Exemption, ...], EXEMPTIONS] = ()
    """What stays in clear with every peer that has no list of its own."""
    peers: Annotated[Path, File()] = Path("peers.d")
    blocks: Annotated[Path, File()] = Path("blocks.d")
    hooks: Annotated[Path, File()] = Path("hooks.d")
    state: Annotated[Path, File()] = STATE
    """The service's own folder: what has to outlive it. It and the commands alone write there."""
    renewal: RenewalSection = RenewalSection()
    charon: CharonSection = CharonSection()
    control: ControlSection = ControlSection()
    log: LogSection = LogSection()
    data_path: DataPathSection = DataPathSection()
    bench: BenchSection = BenchSection()
    connection: ConnectionSection = field(default_factory=ConnectionSection)
    initiation: InitiationSettings = field(default_factory=InitiationSettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)

    def settings(self, credentials: Credentials) -> Settings:
        """What decisions need of it, with the credentials that it names."""
        return Settings(
            host=self.host,
            credentials=credentials,
            addresses=self.credentials.addresses,
            crl_expired=self.credentials.crl_expired,
            policy=self.policy,
            exempt=self.exempt,
            connection=self.connection.settings,
            initiation=self.initiation,
            probe=self.probe,
            path_mtu=self.data_path.path_mtu == "auto",
            automatic_encapsulation=self.connection.encapsulation == "auto",
        )

    @property
    def environment(self) -> dict[str, str]:
        """What hooks learn of this host, so that their own calls of `swanmesh` reach its service."""
        return {"SWANMESH_HOST": self.host.name, "SWANMESH_CONFIG": str(self.path)}
