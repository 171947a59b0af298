"""What stands beside the one IKE_SA and CHILD_SA that a pair should have."""

from __future__ import annotations

from collections.abc import Sequence

from swanmesh.core.actions import TerminateChild, TerminateIke
from swanmesh.core.observed import ChildSa, IkeSa
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.reasons import NO_CHILD, Reason, duplicate, flooding

TIE = 5.0
"""Seconds: IKE_SAs established this close together count as equally old. Both ends know the moment to within
a round trip and charon's rounding to seconds."""
HANDFUL = 3
"""Duplicates that crossing initiations and restarts leave; more is no accident, and gets no time."""
PILE = 24
"""More than so many are not left standing, however often the peer brings them."""


def extras(pair: Pair) -> list[IkeSa]:
    """The established IKE_SAs beside the one that should stay, or all of them if none has a CHILD_SA that
    counts: charon must never be asked to initiate on such a one, since 5.9.8 then dies of a double free when
    the peer answers from another address while a DPD is unanswered. Only established ones count: the old
    one of a rekey is REKEYED, one that ends is DELETING."""
    established = _established(pair)
    if len(established) <= HANDFUL:
        established = [sa for sa in established if not sa.makes_child]
    keep = survivor(established, pair)
    # What is up without one that counts is half-way through a rekey.
    if keep is not None and (pair.associations.counts(keep) or pair.up):
        established.remove(keep)
    return established


def has_extra(pair: Pair) -> bool:
    """Whether anything stands beside what should."""
    return bool(extras(pair)) or extra_child(pair) is not None


def end_extras(pair: Pair) -> TerminateIke | TerminateChild | None:
    """Ends all of them in one go; extra CHILD_SAs after that, one by one."""
    ended = extras(pair)
    if not ended:
        return extra_child(pair)
    keep = survivor(_established(pair), pair)
    return TerminateIke(
        unique_ids=tuple(sa.unique_id for sa in ended),
        connection=pair.name,
        peer=pair.peer,
        # An IKE_SA without a CHILD_SA is of no use to the peer either, and it may never answer the DELETE.
        force=all(not sa.works for sa in ended),
        reason=_reason(ended, keep),
    )


def _reason(ended: Sequence[IkeSa], keep: IkeSa | None) -> Reason:
    if len(ended) > HANDFUL:
        return flooding(len(ended))
    return NO_CHILD if keep is None or keep in ended else duplicate(f"IKE_SA #{keep.unique_id}")


def extra_child(pair: Pair) -> TerminateChild | None:
    """The end of a CHILD_SA beside the one that stays."""
    keep = survivor(_established(pair), pair)
    installed = [child for child in keep.children if child.state == "INSTALLED"] if keep else []
    if len(installed) < 2:
        return None
    kept = max(installed, key=_child_rank)
    other = next(child for child in installed if child is not kept)
    return TerminateChild(
        unique_id=other.unique_id,
        connection=pair.name,
        peer=pair.peer,
        reason=duplicate(f"CHILD_SA #{kept.unique_id}"),
    )


def survivor(established: Sequence[IkeSa], pair: Pair) -> IkeSa | None:
    """The IKE_SA that stays, the same at both ends: of those that count the youngest, since the kernel sends
    on the newest SA, and since an older one may be a zombie whose other end is gone. Of those equally young,
    the one that the pair's initiator began; then the SPIs decide."""
    candidates = [sa for sa in established if pair.associations.counts(sa)] or established
    if not candidates:
        return None
    born = {unique_id: times.born for unique_id, times in pair.associations.times.items()}
    newest = max(born.get(sa.unique_id, 0.0) for sa in candidates)
    young = [sa for sa in candidates if born.get(sa.unique_id, 0.0) >= newest - TIE]
    return max(young, key=lambda sa: (sa.initiator == pair.initiator, sa.spi_initiator, sa.spi_responder))


def _established(pair: Pair) -> list[IkeSa]:
    return [sa for sa in pair.sas.values() if sa.established and not sa.ending]


def _child_rank(child: ChildSa) -> tuple[float, list[str]]:
    return (-(child.age or 0.0) // TIE, sorted((child.spi_in, child.spi_out)))
