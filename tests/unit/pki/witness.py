"""What others say of a certificate: OpenSSL, and strongSwan's pki."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path


def openssl_takes(
    certificate: Path,
    roots: Path,
    *,
    chain: Path | None = None,
    crl: Path | None = None,
    at: float | None = None,
    options: Sequence[str] = (),
) -> bool:
    """Whether `openssl verify` takes it, at a time in seconds since the epoch (now, if None)."""
    command = ["openssl", "verify", *options, "-CAfile", str(roots)]
    command += ["-untrusted", str(chain)] if chain else []
    command += ["-crl_check", "-CRLfile", str(crl)] if crl else []
    command += ["-attime", str(int(at))] if at is not None else []
    return _succeeds([*command, str(certificate)])


def strongswan_takes(certificate: Path, root: Path, *, crl: Path | None = None) -> bool:
    """Whether strongSwan's `pki --verify` takes it now."""
    command = ["pki", "--verify", "--in", str(certificate), "--cacert", str(root)]
    return _succeeds([*command, *(["--crl", str(crl)] if crl else [])])


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
