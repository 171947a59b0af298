"""Why something is done, or is not as it should be: a code for programs and words for people.

Whatever decides looks at the code alone; the words may change in any release. The codes are those of the log,
the event stream, `status --json` and the label `reason` of the metrics, so a code is never renamed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason. Empty (and false) where there is nothing to say."""

    code: str = ""
    """Words with hyphens, such as `peer-unreachable`: one of few, with nothing of the case in it."""
    words: str = ""
    """One line for people, with the details of the case. What a peer sent in it is made printable before."""

    def __str__(self) -> str:
        return self.words

    def __bool__(self) -> bool:
        return bool(self.code or self.words)

    def after(self, words: str) -> Reason:
        """The same reason, told as the cause of something else."""
        return Reason(self.code, f"{words}: {self.words}")


NONE = Reason()


class Cause(enum.StrEnum):
    """Why an association failed or ended, as far as charon tells: codes, few enough to act upon and to count
    by."""

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

# Why a connection is loaded, or is not.
NEW_PEER = Reason("new-peer", "new peer")
SETTINGS_CHANGED = Reason("settings-changed", "settings changed")
PEER_REMOVED = Reason("peer-removed", "peer removed")
FILE_GONE = Reason("peer-removed", "its file is gone")
ADDRESS_REMOVED = Reason("address-removed", "address or policy removed from the peer")
UNKNOWN_PEER = Reason("unknown-peer", "no file knows this peer or address any more")
ANOTHER_VERSION = Reason("another-version", "charon holds another version of it")
UNLOADED = Reason("unloaded-by-others", "somebody unloaded it from charon")
UNLOADED_AT_START = Reason(
    "unloaded-by-others", "swanctl --load-all unloaded it, as Debian's unit does after each start of charon"
)
DISCOVERY = Reason("neighbour-discovery", "IPv6 neighbour discovery must pass while traps stand")
NEW_BLOCK = Reason("new-block", "new block")
BLOCK_REMOVED = Reason("block-removed", "block removed")
NO_IPV6 = Reason("neighbour-discovery", "this host has no IPv6 address any more")
FILES_IN_DOUBT = "files-in-doubt"
"""Code: what no file describes is left alone, for a file that may describe it says nothing valid."""
MISSING_CREDENTIALS = Reason(
    "missing-credentials", "charon does not hold this host's certificate and key, or the mesh's authorities"
)

NOT_REACHED = Reason("charon-unreachable", "not reached yet")

# Why a pair is not up, or not yet.
CONNECTING = Reason("connecting", "connecting")
OURS_TO_INITIATE = Reason("ours-to-initiate", "ours to initiate")
PEER_DID_NOT_INITIATE = Reason("peer-did-not-initiate", "the peer did not initiate")
WAITING_TO_INITIATE = Reason("waiting-to-initiate", "waiting to initiate")
WAITING_FOR_PEER = Reason("waiting-for-peer", "waiting for the peer to initiate")
WAITING_FOR_PLACE = Reason("waiting-for-place", "waiting for other initiations to end")
WAITING_FOR_GUARD = Reason("waiting-for-guard", "the kernel's guard comes first")
WAITING_FOR_LOOK = Reason("waiting-for-look", "charon is looked at first")
NO_ANSWER = Reason("peer-unreachable", "peer unreachable: no answer")
NO_CHILD = Reason("no-child-sa", "its IKE_SA has no CHILD_SA")
ASSOCIATION_GONE = Reason("association-gone", "the association is gone")
LOOK_AGAIN = Reason("look-again", "what no look shows and no event ended is looked for again")
GONE_FROM_CHARON = Reason("association-gone", "the association is gone from charon")
LOST_WITH_CHARON = Reason("lost-with-charon", "charon no longer had it when it answered again")
CHILD_DELETED = Reason("child-deleted", "its CHILD_SA was deleted")
HELD_DOWN = Reason("held-down", "held down by the operator")
HELD_DOWN_UNTIL_UP = Reason("held-down", "held down by the operator until `up`")
POLICY_OFF = "policy-off"
POLICY_MONITOR = "policy-monitor"
DISABLED = Reason("disabled", "everything is in clear: disabled by the operator until `enable`")
NO_COMMON_FAMILY = Reason("no-common-family", "no address of a family that this host has one of")
ONE_WAY = "one-way"
"""Code: packets go out and none come in."""
ESP_BLOCKED = Reason("esp-blocked", "ESP does not pass, though IKE lives: it goes inside UDP")
ESP_AGAIN = Reason("esp-again", "ESP inside UDP works: it is tried by itself again")
ESP_STILL_BLOCKED = Reason("esp-blocked", "ESP by itself does not pass yet")
UDP_NOT_NEEDED = Reason("udp-not-needed", "the peer goes inside UDP, and as far as is known here ESP passes")
UDP_NO_BETTER = Reason("udp-no-better", "ESP inside UDP does not pass either")
PATH_MTU = "path-mtu"
"""Code: the path carries smaller packets than the kernel believes, and nobody tells it."""
LARGE_PASS = Reason(PATH_MTU, "the kernel's own word on large packets holds again")
NO_DATA = "no-data"
"""Code: IKE lives, and nothing passes through the association."""
FLOODING = "flooding"
"""Code: a peer piles up IKE_SAs."""
NOT_AS_AGREED = "not-as-agreed"
"""Code: an association is not what its pair asked for."""

# What the operator asked for.
ASKED = Reason("operator", "the operator asked for it")

# Certificates.
NEW_CERTIFICATE = Reason("new-certificate", "this host has another certificate")
NEW_LIST = Reason("revocation-list", "charon does not hold the newest revocation list")
REVOCATION_DOUBT = Reason(
    "revocation-list", "a revocation list came, and the certificate that this stands on is not known for sure"
)
CERTIFICATE_DATES = Reason("certificate-dates", "the peer's certificate has ended, and it showed no other")

AUTHORITY_DROPPED = Reason(
    "authority-dropped", "the peer's certificate is of an authority that is believed no more"
)

# Meddling in the kernel.
POLICIES_FLUSHED = Reason("policies-flushed", "somebody flushed the kernel's IPsec policies")
STATES_FLUSHED = Reason("states-flushed", "somebody flushed the kernel's IPsec states")
POLICIES_MISSING = Reason("policies-missing", "the kernel lacks its policies")
POLICIES_OF_ANOTHER = Reason("policies-missing", "the kernel's policies are those of another association")
STATES_MISSING = Reason("states-missing", "the kernel lacks its states")

# The guard.
GUARD_WANTED = Reason("guard", "what the policies say")
GUARD_TAKEN = Reason("guard-taken", "somebody took policies of the guard away")

# Why charon or the kernel is looked at.
SAFETY_NET = Reason("safety-net", "the slow safety net")
LOOK_FAILED = Reason("look-failed", "the last look failed")
REKEYING = Reason("rekeying", "a CHILD_SA is being replaced")
STATUS_ASKED = Reason("status-asked", "somebody asks for the status")
DATA_PATH = Reason("data-path", "whether data passes")
BEING_ENDED = Reason("being-ended", "an association is being ended")


def no_association(policy: str) -> Reason:
    """Its policy makes none."""
    return Reason(f"policy-{policy}", f"its policy is {policy}")


def refused(words: str) -> Reason:
    """What charon said to a request."""
    return Reason("refused", words)


def duplicate(of: str) -> Reason:
    return Reason("duplicate", f"duplicate of {of}")


def flooding(count: int) -> Reason:
    """IKE_SAs that a peer piled up."""
    return Reason(FLOODING, f"the peer keeps beginning IKE_SAs: {count} more than one stood")


def not_as_agreed(words: str) -> Reason:
    """An association that is not what its pair asked for."""
    return Reason(NOT_AS_AGREED, words)
