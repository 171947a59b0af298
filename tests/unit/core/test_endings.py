"""Why an IKE_SA went down, told by the state and tasks of the event (seen with charon 5.9.8)."""

from __future__ import annotations

import pytest

from swanmesh.core.endings import ending
from tests.unit.core.build import ike_sa, with_tasks


@pytest.mark.parametrize(
    ("state", "active", "passive", "words"),
    [
        ("DELETING", (), ("IKE_DELETE",), "peer deleted it"),
        ("DELETING", ("IKE_DELETE",), (), "ended at this end"),
        ("DELETING", ("IKE_DELETE",), ("IKE_DELETE",), "peer deleted it"),
        ("DELETING", (), (), "ended"),
        ("ESTABLISHED", ("IKE_DPD",), (), "peer unreachable: no answer to IKE_DPD"),
        ("REKEYING", ("CHILD_REKEY",), (), "peer unreachable: no answer to CHILD_REKEY"),
        ("ESTABLISHED", (), (), "the peer lost its state and began anew"),
        ("CONNECTING", (), (), "authentication or negotiation failed"),
        ("CONNECTING", ("IKE_AUTH",), (), "authentication or negotiation failed"),
    ],
)
def test_ending(state: str, active: tuple[str, ...], passive: tuple[str, ...], words: str) -> None:
    assert ending(with_tasks(ike_sa("n", 1, state), active=active, passive=passive)) == words
