"""Why an IKE_SA went down, in words, from the state and the tasks that charon reports with `ike-updown`."""

from __future__ import annotations

from swanmesh.core.observed import IkeSa

CHARON_GONE = "charon no longer had it when it answered again"


def ending(ike: IkeSa) -> str:
    """The cause that the event itself shows. A Diagnosis from charon's log says more and takes precedence.

    Source: what ike_sa.c and task_manager_v2.c leave in place when they raise ike_updown: a DELETE that came
    is a passive task, one that we sent an active one; giving up after retransmissions leaves the task that
    had no answer (checked on 5.9.8).
    """
    if ike.state == "DELETING":
        if "IKE_DELETE" in ike.tasks_passive:
            return "peer deleted it"
        if "IKE_DELETE" in ike.tasks_active:
            return "ended at this end"
        return "ended"
    if ike.state == "CONNECTING":
        return "authentication or negotiation failed"
    if ike.tasks_active:
        return f"peer unreachable: no answer to {', '.join(ike.tasks_active)}"
    return "the peer lost its state and began anew"
