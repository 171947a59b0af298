"""Why an association failed or ended, as far as charon tells: the codes of these reasons."""

from __future__ import annotations

import enum


class Cause(enum.StrEnum):
    """Few enough to act upon and to count by; the words of a `Reason` say the rest."""

    PEER_UNREACHABLE = "peer-unreachable"
    HALF_OPEN_TIMEOUT = "half-open-timeout"
    """The peer began, and fell silent before it had proved who it is."""
    PEER_DELETED = "peer-deleted"
    ENDED_HERE = "ended-here"
    REPLACED = "replaced"
    """In favour of another IKE_SA of the same peer."""
    EXPIRED = "expired"
    PEER_BEGAN_ANEW = "peer-began-anew"
    NEGOTIATION_FAILED = "negotiation-failed"
    NO_CONNECTION_AT_PEER = "no-connection-at-peer"
    """Or no common proposal: in IKE_SA_INIT the peer says both alike."""
    NO_CONNECTION_HERE = "no-connection-here"
    NO_PROPOSAL = "no-proposal"
    UNSUPPORTED_ALGORITHM = "unsupported-algorithm"
    """charon here was told to propose what it has no plugin for."""
    PEER_REFUSED = "peer-refused"
    AUTHENTICATION_FAILED_AT_PEER = "authentication-failed-at-peer"
    AUTHENTICATION_FAILED_HERE = "authentication-failed-here"
    MISSING_KEY = "missing-key"
    """charon here holds no private key for this host's identity."""
    AUTHORITY_UNKNOWN = "authority-unknown"
    """No authority that charon here trusts vouches for the peer's certificate."""
    CERTIFICATE_DATES = "certificate-dates"
    CERTIFICATE_REVOKED = "certificate-revoked"
    IDENTITY_MISMATCH = "identity-mismatch"
    SELECTORS_REFUSED = "selectors-refused"
    MODE_REFUSED = "mode-refused"
    KERNEL_REFUSED = "kernel-refused"
    CHILD_FAILED = "child-failed"
    """The CHILD_SA, for a reason told before; its IKE_SA stands."""


LACKING_CREDENTIALS = frozenset({Cause.MISSING_KEY, Cause.AUTHORITY_UNKNOWN})
"""What charon also says when it lacks our key or the mesh's authorities."""
