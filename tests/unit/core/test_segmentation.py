"""What is said of segmentation through ESP."""

from __future__ import annotations

import pytest

from swanmesh.core.segmentation import remarks, summary, without
from swanmesh.core.xfrm import Module, Segmenting


def said(*found: Segmenting, setting: str = "auto", families: tuple[int, ...] = (4,)) -> list[str]:
    return [str(problem) for problem in remarks(found, setting, families)]


def test_nothing_is_said_where_all_states_have_it() -> None:
    assert said(Segmenting(4, Module.LOADED, 10)) == []
    assert said(Segmenting(4, Module.BUILT_IN, 10)) == []


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Module.NOT_LOADED, ["esp4_offload", "not loaded", "modprobe esp4_offload", "swanmesh rekey"]),
        (Module.ABSENT, ["esp4_offload", "not part of this kernel"]),
    ],
)
def test_a_module_that_is_missing_is_told_with_its_remedy(module: Module, words: list[str]) -> None:
    (problem,) = said(Segmenting(4, module, 10))
    assert all(word in problem for word in words)


def test_what_cannot_be_seen_is_no_problem() -> None:
    assert said(Segmenting(4, Module.UNKNOWN, 10)) == []


def test_states_of_before_are_counted_as_the_least_that_there_are() -> None:
    (problem,) = said(Segmenting(4, Module.LOADED, 10, 4, 1000), families=(4, 6))
    assert "at least 4 of 10" in problem
    assert "swanmesh rekey" in problem


@pytest.mark.parametrize("setting", ["auto", "off"])
def test_the_module_that_repeats_ivs_is_never_asked_for_and_told_of_where_it_is(setting: str) -> None:
    for module in (Module.NOT_LOADED, Module.ABSENT, Module.UNKNOWN):
        assert said(Segmenting(6, module, 10), setting=setting, families=(6,)) == []
    (problem,) = said(Segmenting(6, Module.LOADED, 10, 4, 1000), setting=setting, families=(6,))
    assert "repeats IVs" in problem
    assert "mask modprobe@esp6_offload.service" in problem


def test_a_family_that_this_host_has_no_address_of_is_passed_over() -> None:
    assert said(Segmenting(4, Module.NOT_LOADED), families=(6,)) == []


def test_switched_off_a_missing_module_is_right_and_one_that_is_there_is_not() -> None:
    assert said(Segmenting(4, Module.NOT_LOADED), setting="off") == []
    (problem,) = said(Segmenting(4, Module.LOADED), setting="off")
    assert "switched off" in problem
    assert "mask modprobe@esp4_offload.service" in problem


def test_the_summary_names_both_modules_and_the_switch() -> None:
    found = (Segmenting(4, Module.LOADED), Segmenting(6, Module.NOT_LOADED))
    assert summary(found, "auto") == "esp4_offload loaded, esp6_offload not loaded"
    assert summary(found, "off").endswith("switched off by data_path.segmentation")
    assert summary((), "auto") == ""


def test_an_association_as_old_as_the_states_that_do_without_is_one_of_them() -> None:
    found = (Segmenting(4, Module.LOADED, 10, 4, 1000),)
    assert without(found, 4, 999.5)
    assert without(found, 4, 1000.9), "the kernel notes whole seconds"
    assert not without(found, 4, 1001.0)
    assert not without(found, 6, 999.5)
    assert not without((Segmenting(4, Module.LOADED, 10),), 4, 0.0)
