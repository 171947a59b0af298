"""When charon is looked at."""

from __future__ import annotations

from swanmesh.core.actions import ObserveAll, ObserveSas
from swanmesh.core.decide.observation import Looks
from swanmesh.core.reasons import SAFETY_NET, Reason


def test_nothing_wanted_no_look() -> None:
    looks = Looks(60.0)
    assert looks.due is None and looks.step(1000.0) is None


def test_one_look_at_a_time_and_the_earlier_wish_counts() -> None:
    looks = Looks(60.0)
    looks.want(10.0, Reason("test", "later"))
    looks.want(5.0, Reason("test", "sooner"))
    looks.want(7.0, Reason("test", "between"))
    assert looks.due == 5.0 and looks.step(4.9) is None
    assert looks.step(5.0) == ObserveSas(reason=Reason("test", "sooner"))
    looks.want(5.0, Reason("test", "again"))
    assert looks.due is None and looks.step(100.0) is None
    assert looks.finished(5.1, full=False) == frozenset()
    assert looks.due == 6.1  # not at once: at least a second between looks


def test_a_full_look_serves_both_wishes() -> None:
    looks = Looks(60.0)
    looks.want(5.0, Reason("test", "an attempt"))
    looks.want_all(3.0, Reason("test", "charon refused"))
    assert looks.full_wanted(3.0) and not looks.full_wanted(2.0)
    assert looks.step(5.0) == ObserveAll(reason=Reason("test", "charon refused"))
    assert not looks.full_wanted(5.0)
    looks.finished(5.1, full=True)
    assert looks.due == 65.1


def test_the_pace_follows_what_a_look_costs() -> None:
    looks = Looks(60.0)
    looks.want_all(0.0, Reason("test", "start"))
    looks.step(0.0)
    looks.finished(0.4, full=True)  # at most ten percent of the time for those that something waits for
    looks.want(0.4, Reason("test", "an attempt"))
    assert looks.due == 4.4
    assert looks.step(4.4) == ObserveSas(reason=Reason("test", "an attempt"))
    looks.finished(4.5, full=False)
    assert looks.due == 60.4
    assert looks.step(61.0) == ObserveAll(reason=SAFETY_NET)
    looks.finished(63.0, full=True)  # 2 s: at most one percent of the time for full looks
    assert looks.due == 263.0


def test_a_look_that_takes_very_long_does_not_put_off_the_next_ones_for_ever() -> None:
    looks = Looks(60.0)
    looks.want_all(0.0, Reason("test", "start"))
    looks.step(0.0)
    looks.finished(30.0, full=True)  # charon waited for one busy IKE_SA
    assert looks.due == 330.0
    looks.want(30.0, Reason("test", "an attempt"))
    assert looks.due == 60.0  # half of charon's time is its own


def test_the_safety_net_never_goes_missing() -> None:
    looks = Looks(60.0)
    looks.want(1.0, Reason("test", "an attempt"))
    looks.step(1.0)
    looks.finished(1.1, full=False)
    assert looks.due == 61.1
    assert looks.step(61.1) == ObserveAll(reason=SAFETY_NET)


def test_what_events_touched_during_a_look_is_told() -> None:
    looks = Looks(60.0)
    looks.touch("before")
    looks.want(1.0, Reason("test", "an attempt"))
    looks.step(1.0)
    looks.touch("during")
    assert looks.began == 1.0
    assert looks.finished(1.5, full=False) == {"during"}
    assert looks.took == 0.5
    looks.touch("after")
    looks.want(2.0, Reason("test", "another"))
    looks.step(3.0)
    assert looks.finished(3.1, full=False) == frozenset()


def test_a_lost_charon_takes_the_look_under_way_with_it() -> None:
    looks = Looks(60.0)
    looks.want_all(1.0, Reason("test", "start"))
    looks.step(1.0)
    looks.reset()
    assert looks.due is None
    looks.want(2.0, Reason("test", "charon is back"))
    assert looks.step(2.0) == ObserveSas(reason=Reason("test", "charon is back"))
