"""Bonuses from counts, against counting by hand."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.methods.control.exploration.count_bonus import CountBonus
from headwater.methods.control.exploration.e3b import E3B
from headwater.methods.control.exploration.novel_d import NovelD
from headwater.methods.control.online.dqn import DQN
from headwater.methods.control.streaming.stream_td import StreamTD

from .walks import INNER, PLACES, SPACES, paid, steps


def _by_hand(bonus: str, terminal: bool) -> list[float]:
    ever, found = collections.Counter(), []
    for places in PLACES:
        here = collections.Counter(places[:1])
        ever[places[0]] += 1
        for i, place in enumerate(places[1:]):
            if terminal and i == len(places) - 2:
                found.append(0.0)
                continue
            ever[place] += 1
            here[place] += 1
            parts = {"global": ever[place] ** -0.5, "episodic": float(here[place] == 1)}
            parts["product"] = parts["global"] * parts["episodic"]
            found.append(parts[bonus])
    return found


@pytest.mark.parity
@pytest.mark.parametrize("bonus", ["global", "episodic", "product"])
@pytest.mark.parametrize("terminal", [False, True])
def test_bonuses_are_those_counted_by_hand(bonus, terminal):
    method = CountBonus(inner=INNER, bonus=bonus, scale_bonus=False, bonus_scale=0.5)
    found, _ = paid(method, steps(terminal))
    np.testing.assert_allclose(found, 0.5 * np.asarray(_by_hand(bonus, terminal)), rtol=1e-6)


@pytest.mark.parity
def test_scaled_bonuses_are_divided_by_their_deviation_so_far():
    bonuses = np.asarray(_by_hand("global", False))
    deviation = [1.0, *(bonuses[: i + 1].std(ddof=1) for i in range(1, len(bonuses)))]
    found, _ = paid(CountBonus(inner=INNER, bonus="global", bonus_scale=0.5), steps())
    np.testing.assert_allclose(found, 0.5 * bonuses / np.asarray(deviation), rtol=1e-4)


@pytest.mark.equivalence
def test_without_a_bonus_it_is_the_inner_method():
    _, state = paid(CountBonus(inner=INNER, bonus="none"), steps())
    inner = INNER.init(SPACES, key=jax.random.key(0))
    for step in steps():
        inner, _ = INNER.update(inner, step, key=jax.random.key(1))
    for ours, theirs in zip(jax.tree.leaves(state.inner), jax.tree.leaves(inner), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.oracle
def test_the_inner_method_sees_its_columns_and_the_counts_see_theirs():
    method = CountBonus(
        inner=INNER,
        bonus="global",
        scale_bonus=False,
        policy_columns=(1,),
        novelty_columns=(0,),
        reward_clip=float("inf"),
    )
    found, state = paid(method, steps())
    # Column 0 never changes: each step, and each beginning, is one more visit of the same cell.
    np.testing.assert_allclose(found, np.asarray([2, 3, 4, 5, 7, 8, 9]) ** -0.5, rtol=1e-6)
    assert state.inner.network.weights[0].shape == (1, 2)
    action, _ = method.act(state, jnp.asarray([9.0, 2.0]), key=jax.random.key(0), explore=False)
    assert int(action) in (0, 1)


@pytest.mark.oracle
def test_the_sum_is_clipped():
    step = steps()[0]
    once = {}
    for clip in (0.4, 0.75, float("inf")):
        method = CountBonus(inner=INNER, scale_bonus=False, bonus_scale=1e3, reward_clip=clip)
        _, state = paid(method, [step])
        once[clip] = float(state.inner.scales.discounted)
    assert once == pytest.approx({0.4: 0.4, 0.75: 0.75, float("inf"): 0.25 + 1e3})


def test_what_cannot_be_counted_or_wrapped_is_explained():
    endless = Spaces(Box((0.0, -np.inf), (1.0, np.inf)), Discrete(2))
    key = jax.random.key(0)
    with pytest.raises(SpecificationError, match="but column 1 has none: name columns"):
        CountBonus(inner=INNER).init(endless, key=key)
    CountBonus(inner=INNER, novelty_columns=(0,)).init(endless, key=key)
    wide = Spaces(Box((0.0,) * 30, (1.0,) * 30), Discrete(2))
    with pytest.raises(SpecificationError, match="would count 1,073,741,824 cells of 30 columns"):
        CountBonus(inner=INNER).init(wide, key=key)
    # What the message advises counts nothing.
    for advised in (E3B(inner=INNER), NovelD(inner=INNER, first_visits=False)):
        advised.init(wide, key=key)
    for other in (E3B(inner=INNER, features="cells"), NovelD(inner=INNER)):
        with pytest.raises(SpecificationError, match="or NovelD with first_visits = false"):
            other.init(wide, key=key)
    with pytest.raises(SpecificationError, match="there is no column 2 among the 2"):
        CountBonus(inner=INNER, novelty_columns=(2,)).init(SPACES, key=key)
    for inner in (DQN(), StreamTD()):
        with pytest.raises(SpecificationError, match="take StreamAC or StreamQ"):
            CountBonus(inner=inner)
