"""The files of one host of the lab, all in one folder."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_SHIPPED_SETTINGS = Path(__file__).parents[1] / "conf/strongswan.d"
_PATIENT = (6, 0, 1)
# What IKEv2 with certificates needs, and no more: a charon starts in a fraction of the time.
_PLUGINS = (
    "random nonce x509 revocation constraints pubkey pkcs1 pkcs8 pem openssl kdf hmac gcm "
    "kernel-netlink socket-default counters vici"
)
_STRONGSWAN_CONF = """\
{shipped}
charon-systemd {{
  load = {plugins}
  plugins {{
    vici {{
      socket = unix://{vici}
    }}
  }}
  filelog {{
    log {{
      path = {log}
      default = 1
      append = yes
      flush_line = yes
      time_format = %FT%T
      time_add_ms = yes
    }}
  }}
}}
swanctl {{
  socket = unix://{vici}
}}
"""


@functools.cache
def patient() -> bool:
    """Whether `make install` gives the strongSwan at hand the patient settings."""
    program = shutil.which("swanctl", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") or "swanctl"
    usage = subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"^strongSwan (\d+)\.(\d+)\.(\d+)", usage, re.MULTILINE)
    return version is not None and tuple(map(int, version.groups())) >= _PATIENT


def shipped_settings() -> list[str]:
    """Names of the files that `make install` puts into strongswan.d, in the order that they are read."""
    return ["swanmesh.conf", *(["swanmesh.patient.conf"] if patient() else [])]


@dataclass(eq=False, kw_only=True)
class HostFiles:
    """Who a host is, and where its files lie."""

    short: str
    """Such as h1; the name of its namespace without the lab's prefix."""
    name: str
    """Such as h1.mesh.example: the identity in its certificate."""
    addresses: tuple[str, ...]
    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "swanmesh.yaml"

    @property
    def peers(self) -> Path:
        return self.folder / "peers.d"

    @property
    def vici_socket(self) -> Path:
        return self.folder / "charon.vici"

    @property
    def control_socket(self) -> Path:
        return self.folder / "control.sock"

    @property
    def charon_log(self) -> Path:
        return self.folder / "charon.log"

    @property
    def swanmesh_log(self) -> Path:
        return self.folder / "swanmesh.log"

    @property
    def environment(self) -> dict[str, str]:
        """What makes swanmesh, swanctl and charon take this host's files."""
        return {
            "STRONGSWAN_CONF": str(self.folder / "strongswan.conf"),
            "SWANCTL_DIR": str(self.folder / "swanctl"),
            "SWANMESH_CONFIG": str(self.config),
        }

    def ipv4(self, index: int = 0) -> str:
        return [address for address in self.addresses if ":" not in address][index]

    def ipv6(self, index: int = 0) -> str:
        return [address for address in self.addresses if ":" in address][index]

    def write_config(self, **sections: Any) -> None:
        """Writes swanmesh.yaml and strongswan.conf; `sections` are added to the former's."""
        document: dict[str, Any] = {
            "host": {"name": self.name, "addresses": list(self.addresses)},
            "credentials": {
                "certificate": "host.pem",
                "private_key": "host.key",
                "authorities": ["ca.pem"],
            },
            "peers": "peers.d",
            "hooks": "hooks.d",
            "state": "state",
            "charon": {"socket": self.vici_socket.name},
            "control": {"socket": self.control_socket.name},
        }
        self.config.write_text(yaml.safe_dump(document | sections, sort_keys=False))
        (self.folder / "strongswan.conf").write_text(
            _STRONGSWAN_CONF.format(
                shipped="\n".join(f"include {_SHIPPED_SETTINGS / name}" for name in shipped_settings()),
                plugins=_PLUGINS,
                vici=self.vici_socket,
                log=self.charon_log,
            )
        )

    def write_peer(self, other: HostFiles) -> None:
        """Puts `other` into peers.d, as `add-peer` would."""
        text = yaml.safe_dump({"name": other.name, "addresses": list(other.addresses)}, sort_keys=False)
        whole = self.peers / f".{other.short}"
        whole.write_text(text)
        whole.replace(self.peers / f"{other.name}.yaml")
