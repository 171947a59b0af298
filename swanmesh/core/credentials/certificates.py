"""The peers' certificates, as far as charon has shown them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from swanmesh.core.observed import SeenCertificate

SKEW = 300.0
"""Seconds that clocks may differ by."""
_KEPT = 4
"""Certificates of one name that are kept."""


@dataclass(slots=True)
class Certificates:
    """The peers' certificates that charon has seen, by the names in them."""

    offset: float | None = None
    """What the wall's clock is ahead of the core's; None until it is known."""
    dropped: frozenset[str] = frozenset()
    """Authorities that this host believed in this process's life, and does not any more: what stands on them
    ends."""
    spared: frozenset[str] = frozenset()
    """The same, but many stood on them."""
    changes: int = 0
    """How often one came that was not known."""
    _seen: dict[str, dict[str, SeenCertificate]] = field(default_factory=dict)

    def take(self, certificates: Iterable[SeenCertificate], names: frozenset[str]) -> None:
        """Those of these peers, in addition to what was seen before: charon's cache holds a few dozen."""
        for certificate in certificates:
            for name in names.intersection(certificate.names):
                known = self._seen.setdefault(name, {})
                self.changes += certificate.fingerprint not in known
                known[certificate.fingerprint] = certificate
                if len(known) > _KEPT:
                    del known[min(known, key=lambda one: known[one].not_after)]

    def of(self, name: str) -> list[SeenCertificate]:
        """All that were seen of this name, the one that ends first at the head."""
        return sorted(self._seen.get(name, {}).values(), key=lambda one: one.not_after)

    def all(self) -> Iterator[SeenCertificate]:
        for known in self._seen.values():
            yield from known.values()

    def news(self, name: str, certificates: Iterable[SeenCertificate]) -> list[SeenCertificate]:
        """Those of this name that were never seen before."""
        known = self._seen.get(name, {})
        return [one for one in certificates if name in one.names and one.fingerprint not in known]

    def possible(self, name: str, at: float) -> list[SeenCertificate]:
        """What the peer may have shown in an authentication at that time, the one that ends first at the
        head."""
        return [one for one in self.of(name) if one.not_before - SKEW <= at < one.not_after]
