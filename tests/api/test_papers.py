"""What is cited for a run, a method and a claim; and what there is of each paper."""

import pytest

import headwater as hw
from headwater.core.errors import SpecificationError
from headwater.core.papers import paper
from headwater.evidence.papers import coverage

from .problems import pendulum_log


def test_methods_claims_and_keys():
    iql = paper("kostrikov2022iql").bibtex
    assert hw.cite("iql") == hw.cite(hw.IQL) == hw.cite(hw.IQL()) == iql
    assert hw.cite("kostrikov2022iql") == iql
    assert hw.cite("ucbvi-is-optimistic") == paper("azar2017minimax").bibtex
    with pytest.raises(SpecificationError, match="unknown run, method, claim or paper 'IQLL'"):
        hw.cite("IQLL")
    with pytest.raises(SpecificationError, match="'zzz' is no run, method, claim or paper"):
        hw.cite("zzz")


def test_an_adapted_run_cites_both_methods_and_the_recipe(tmp_path):
    offline = hw.train(hw.IQL(hidden_sizes=(8,)), pendulum_log(), env=None, updates=2, seeds=1)
    adapted = hw.adapt(
        offline,
        data=pendulum_log(),
        env="pendulum",
        recipe="wsrl",
        critic_fit_updates=2,
        steps=200,
        set={"num_critics": 2},
        evaluations=1,
        episodes=1,
        out=tmp_path / "adapted",
    )
    keys = ["kostrikov2022iql", "haarnoja2018applications", "zhou2025efficient"]
    assert hw.cite(adapted) == "\n\n".join(paper(key).bibtex for key in keys)
    assert hw.cite(tmp_path / "adapted") == hw.cite(adapted)


def test_every_method_and_claim_stands_at_its_paper():
    found = {entry.paper.key: entry for entry in coverage()}
    assert found["an2021uncertainty"].methods == ("EDAC", "SACN")
    names = [summary.claim.name for summary in found["azar2017minimax"].claims]
    assert "ucbvi-is-optimistic" in names
    assert {summary.verdict for entry in found.values() for summary in entry.claims} == {"not run"}
