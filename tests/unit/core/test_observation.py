"""When charon is looked at."""

from __future__ import annotations

from swanmesh.core.actions import ObserveAll, ObserveSas
from swanmesh.core.reasons import SAFETY_NET, Reason
from swanmesh.core.turns.observation import ObservationSchedule


def test_nothing_wanted_no_look() -> None:
    schedule = ObservationSchedule(60.0)
    assert schedule.due is None and schedule.step(1000.0) is None


def test_one_look_at_a_time_and_the_earlier_wish_counts() -> None:
    schedule = ObservationSchedule(60.0)
    schedule.want(10.0, Reason("test", "later"))
    schedule.want(5.0, Reason("test", "sooner"))
    schedule.want(7.0, Reason("test", "between"))
    assert schedule.due == 5.0 and schedule.step(4.9) is None
    assert schedule.step(5.0) == ObserveSas(reason=Reason("test", "sooner"))
    schedule.want(5.0, Reason("test", "again"))
    assert schedule.due is None and schedule.step(100.0) is None
    assert schedule.finished(5.1, full=False) == frozenset()
    assert schedule.due == 6.1  # not at once: at least a second between looks


def test_a_full_look_serves_both_wishes() -> None:
    schedule = ObservationSchedule(60.0)
    schedule.want(5.0, Reason("test", "an attempt"))
    schedule.want_all(3.0, Reason("test", "charon refused"))
    assert schedule.full_wanted(3.0) and not schedule.full_wanted(2.0)
    assert schedule.step(5.0) == ObserveAll(reason=Reason("test", "charon refused"))
    assert not schedule.full_wanted(5.0)
    schedule.finished(5.1, full=True)
    assert schedule.due == 65.1


def test_the_pace_follows_what_a_look_costs() -> None:
    schedule = ObservationSchedule(60.0)
    schedule.want_all(0.0, Reason("test", "start"))
    schedule.step(0.0)
    schedule.finished(0.4, full=True)  # at most ten percent of the time for those that something waits for
    schedule.want(0.4, Reason("test", "an attempt"))
    assert schedule.due == 4.4
    assert schedule.step(4.4) == ObserveSas(reason=Reason("test", "an attempt"))
    schedule.finished(4.5, full=False)
    assert schedule.due == 60.4
    assert schedule.step(61.0) == ObserveAll(reason=SAFETY_NET)
    schedule.finished(63.0, full=True)  # 2 s: at most one percent of the time for full looks
    assert schedule.due == 263.0


def test_a_look_that_takes_very_long_does_not_put_off_the_next_ones_for_ever() -> None:
    schedule = ObservationSchedule(60.0)
    schedule.want_all(0.0, Reason("test", "start"))
    schedule.step(0.0)
    schedule.finished(30.0, full=True)  # charon waited for one busy IKE_SA
    assert schedule.due == 330.0
    schedule.want(30.0, Reason("test", "an attempt"))
    assert schedule.due == 60.0  # half of charon's time is its own


def test_the_safety_net_never_goes_missing() -> None:
    schedule = ObservationSchedule(60.0)
    schedule.want(1.0, Reason("test", "an attempt"))
    schedule.step(1.0)
    schedule.finished(1.1, full=False)
    assert schedule.due == 61.1
    assert schedule.step(61.1) == ObserveAll(reason=SAFETY_NET)


def test_what_events_touched_during_a_look_is_told() -> None:
    schedule = ObservationSchedule(60.0)
    schedule.touch("before")
    schedule.want(1.0, Reason("test", "an attempt"))
    schedule.step(1.0)
    schedule.touch("during")
    assert schedule.began == 1.0
    assert schedule.finished(1.5, full=False) == {"during"}
    assert schedule.took == 0.5
    schedule.touch("after")
    schedule.want(2.0, Reason("test", "another"))
    schedule.step(3.0)
    assert schedule.finished(3.1, full=False) == frozenset()


def test_a_lost_charon_takes_the_look_under_way_with_it() -> None:
    schedule = ObservationSchedule(60.0)
    schedule.want_all(1.0, Reason("test", "start"))
    schedule.step(1.0)
    schedule.reset()
    assert schedule.due is None
    schedule.want(2.0, Reason("test", "charon is back"))
    assert schedule.step(2.0) == ObserveSas(reason=Reason("test", "charon is back"))
