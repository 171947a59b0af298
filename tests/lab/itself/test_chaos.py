"""A short chaos; that the same seed troubles alike; and that each invariant can be found broken."""

from __future__ import annotations

import random
import re

import pytest

from lab import Host, chaos, mesh, wait_until
from lab.asking import pair_spis
from lab.chaos import Chaos, Event, Violated
from lab.mischief import FAULTS, Fault


def test_a_short_chaos(capsys: pytest.CaptureFixture[str]) -> None:
    run = chaos.chaos(seed=4, hosts=6, minutes=0.75)
    assert run.violations == []
    assert run.counts.total() == len(chaos.schedule(4, 6, 45)) >= 8
    assert chaos.last_line(run) == f"seed 4: {run.counts.total()} faults, 15 pairs, 0 violations"
    assert re.search(r"h\d: well again after \d+ s", capsys.readouterr().out)


def test_a_seed_decides_what_comes_when_and_where() -> None:
    assert chaos.schedule(7, 8, 300) == chaos.schedule(7, 8, 300)
    assert chaos.schedule(7, 8, 300) != chaos.schedule(8, 8, 300)


def test_a_schedule_has_every_fault_and_leaves_hosts_in_peace() -> None:
    for seed in range(20):
        events = chaos.schedule(seed, 8, 300)
        counts = [sum(event.fault is fault for event in events) for fault in FAULTS]
        assert max(counts) - min(counts) <= 1 and min(counts) > 0
        assert all(event.host < 8 and 0 < event.at < 300 for event in events)
        for event in events:
            struck = {e.host for e in events if e.at <= event.at <= e.at + e.lasts}
            assert len(struck) <= 3


def test_a_touched_bystander_is_a_violation(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts that no fault concerns rekey by themselves: what must not change does."""
    monkeypatch.setattr(chaos, "QUIET", 5.0)
    with mesh(3) as lab:
        lab.start()
        lab.wait_until_full()

        def rekey_elsewhere(host: Host, rng: random.Random) -> None:
            one, other = lab[1], lab[2]
            before = pair_spis(one, other)
            one.swanmesh("rekey", other.name, "--wait", timeout=90)
            wait_until(lambda: not before & pair_spis(one, other), 20, "the CHILD_SA is another")

        run = Chaos(lab, 1)
        run.run([Event(at=1, host=0, fault=Fault(name="unfair", begin=rekey_elsewhere), lasts=0)])
        assert run.violations
        assert all(text.startswith("h2-h3 changed") for text in run.violations)
        assert "VIOLATION: h2-h3 changed" in capsys.readouterr().out


def test_what_is_not_well_at_the_end_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "RECOVERY", 5.0)
    monkeypatch.setattr(chaos, "QUIET", 1.0)
    fault = _fault("controller killed")
    incurable = type(fault)(name="incurable", begin=fault.begin)
    with pytest.raises(Violated) as caught:
        chaos.chaos(seed=1, hosts=3, minutes=0.02, faults=(incurable,))
    text = str(caught.value)
    assert re.search(r"h\d is not well 5 s after its last fault", text)
    assert re.search(r"h\d: its charon or its controller has ended", text)
    assert "1 faults, 3 pairs" in chaos.last_line(caught.value.run)


def _fault(name: str) -> Fault:
    return next(fault for fault in FAULTS if fault.name == name)
