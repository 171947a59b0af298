"""The measurements themselves: they run to their end, and compare what is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.results import Line, Results, verdict
from tests.charon.real import available

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not available(), reason="needs root and charon-systemd")
def test_a_small_run_is_complete(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = ("--peers", "20", "--rounds", "1", "--idle", "1", "--json", str(figures))
    done = subprocess.run(
        (sys.executable, "-m", "bench", *options),
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    sections = json.loads(figures.read_text())["sections"]
    lines = {line["what"]: line for lines in sections.values() for line in lines}
    assert len(sections) == 10
    assert lines["VICI requests until it is loaded and initiated"]["ours"] == 2
    assert lines["from the start of the process to all loaded"]["theirs"] > 0
    assert all(line["what"] in done.stdout for line in lines.values())
    assert all(line["met"] is None for line in lines.values())


def test_a_demand_that_is_not_met_shows() -> None:
    results = Results()
    results.add(
        "section", Line(what="slow", ours=2, theirs=1, goal="no slower", met=False), Line(what="x", ours=1)
    )
    assert "NOT MET: no slower" in results.table()
    assert "0.5" in results.table()


def test_what_is_demanded_of_a_large_mesh_is_not_demanded_of_a_small_one() -> None:
    assert verdict(5000, False) is False
    assert verdict(50, False) is None
