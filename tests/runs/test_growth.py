"""Decoders that grow: which layers are copies of which, moments and schedule with them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_tasks import ShiftedCopies
from headwater.methods.language.growth.raptr import RaPTr
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.token_table import PrefixTable
from headwater.ops.language.tokens import token_log_probabilities
from headwater.runs.loop import run
from headwater.runs.recipes.growth import (
    choose_operator,
    growing_stages,
    grown,
    insert_fresh,
    progressive_stages,
    proportional_updates,
    repeat_before,
    repeat_middle,
    stack_last,
)
from headwater.sources.language.fresh_texts import FreshTexts

TASK = ShiftedCopies(size=3)
SOURCE = FreshTexts(TASK, rows=4, whole=True)


def decoder(layers: int) -> Decoder:
    architecture = Architecture(TASK.vocabulary, 16, width=8, layers=layers, heads=2, hidden=8)
    return Decoder(architecture, key=jax.random.key(0))


def numbered(layers: int) -> Decoder:
    """A decoder whose layers can be told apart."""
    made = decoder(layers)
    place = jnp.broadcast_to(jnp.arange(1.0, layers + 1)[:, None], (layers, 8))
    return eqx.tree_at(lambda d: d.blocks.attention_norm.scale, made, place)


@pytest.mark.parametrize(
    ("operator", "layers", "more", "expected"),
    [
        (stack_last, 4, 2, [1, 2, 3, 4, 3, 4]),
        (stack_last, 2, 2, [1, 2, 1, 2]),
        # Of three blocks the second, of two the first: ⌈n/2⌉.
        (repeat_middle, 6, 2, [1, 2, 3, 4, 3, 4, 5, 6]),
        (repeat_middle, 4, 2, [1, 2, 1, 2, 3, 4]),
        (repeat_middle, 3, 1, [1, 2, 2, 3]),
        (repeat_before(2), 4, 1, [1, 2, 2, 3, 4]),
        (insert_fresh(1), 3, 2, [1, 0, 0, 2, 3]),
    ],
)
def test_layers_and_moments_are_copied_alike(operator, layers, more, expected):
    method = SFT()
    state = method.init(TokenProblem(numbered(layers)), key=jax.random.key(0))
    # Moments that tell layers apart as well.
    state = eqx.tree_at(
        lambda s: [s.optimiser[1][0].mu, s.optimiser[1][0].nu],
        state,
        [numbered(layers), jax.tree.map(lambda x: 2.0 * x, numbered(layers))],
    )
    later = grown(state, operator, more, key=jax.random.key(1))
    scale = later.network.blocks.attention_norm.scale[:, 0]
    # Fresh layers begin with a scale of one.
    assert np.array_equal(scale, [max(place, 1) for place in expected])
    for moment, times in ((later.optimiser[1][0].mu, 1.0), (later.optimiser[1][0].nu, 2.0)):
        found = moment.blocks.attention_norm.scale[:, 0]
        np.testing.assert_allclose(found, times * np.asarray(expected))
        one = times * np.asarray(numbered(layers).blocks.query.weight)
        for place, weight in zip(expected, moment.blocks.query.weight):
            np.testing.assert_allclose(weight, one[place - 1] if place else np.zeros_like(weight))
        np.testing.assert_allclose(moment.embedding, times * numbered(layers).embedding)
    empty = grown(state, operator, more, key=jax.random.key(1), moments="empty")
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(empty.optimiser))
    same = jax.tree.map(np.array_equal, later.network, empty.network)
    assert all(jax.tree.leaves(same))


def test_layers_that_add_nothing_leave_the_function():
    made = decoder(2)
    deeper = insert_fresh(1, adds_nothing=True)(made, 2, jax.random.key(3))
    tokens = TASK.texts(3, key=jax.random.key(0)).tokens
    np.testing.assert_allclose(deeper.logits(tokens), made.logits(tokens), atol=1e-5)
    other = insert_fresh(1)(made, 2, jax.random.key(3))
    assert np.abs(np.asarray(other.logits(tokens) - made.logits(tokens))).max() > 1e-3


def test_updates_of_stages():
    assert proportional_updates(600, 3, 1.0) == [100, 200, 300]
    assert proportional_updates(600, 3, 0.0) == [200, 200, 200]
    assert sum(proportional_updates(101, 4, 2.0)) == 101
    with pytest.raises(SpecificationError, match="too few"):
        proportional_updates(2, 3, 1.0)


def test_a_grown_run_is_one_schedule_and_costs_what_it_says():
    method = SFT(learning_rate=3e-3, decay_updates=24.0)
    plan = growing_stages(method, SOURCE, layers=4, stages=2, updates=12, operator="midas")
    assert [stage.updates for stage in plan.stages] == [4, 8]
    assert plan.layer_updates == 4 * 2 + 8 * 4
    result = run(plan.stages, TokenProblem(decoder(4), TASK.end), seeds=2, progress=False)
    last = result.outcomes["depth 4"].state
    assert last.network.blocks.query.weight.shape[:2] == (2, 4)
    assert np.array_equal(last.step, [12, 12])
    first = result.outcomes["depth 2"].state
    assert np.array_equal(first.step, [4, 4]) and first.network.layer_count == 2


def test_sub_networks_use_the_layers_of_their_path():
    problem = TokenProblem(decoder(5), TASK.end)
    method = RaPTr(path_length=3, learning_rate=1e-2)
    state = method.init(problem, key=jax.random.key(0))
    data = SOURCE.task.texts(4, key=jax.random.key(0))
    seen = set()
    update = jax.jit(method.update)
    for i in range(8):
        after, _ = update(state, data, key=jax.random.key(i))
        moved = after.network.blocks.query.weight != state.network.blocks.query.weight
        layers = tuple(np.flatnonzero(np.asarray(moved).any(axis=(1, 2))).tolist())
        assert len(layers) == 3 and layers[0] == 0 and layers[-1] == 4
        seen.add(layers)
    assert seen == {(0, 1, 4), (0, 2, 4), (0, 3, 4)}


def test_progressive_stages_end_with_the_whole_network():
    plan = progressive_stages(RaPTr(learning_rate=1e-3), SOURCE, depths=(2, 3, 4), updates=9)
    assert plan.layer_updates == 3 * (2 + 3 + 4)
    result = run(plan.stages, TokenProblem(decoder(4), TASK.end), progress=False)
    assert int(result.outcomes["3: depth 4"].state.step[0]) == 9
    with pytest.raises(SpecificationError, match="must grow"):
        progressive_stages(RaPTr(), SOURCE, depths=(3, 2), updates=9)


def test_with_all_layers_it_is_fine_tuning():
    problem, data = TokenProblem(decoder(3)), TASK.texts(4, key=jax.random.key(0))
    states = [
        method.update(method.init(problem, key=jax.random.key(0)), data, key=jax.random.key(1))[0]
        for method in (RaPTr(path_length=3, learning_rate=1e-3), SFT(learning_rate=1e-3))
    ]
    same = jax.tree.map(np.array_equal, states[0].network, states[1].network)
    assert all(jax.tree.leaves(same))


def test_the_best_way_of_growing_is_found_after_a_while():
    method = SFT(learning_rate=1e-2)
    state = method.init(TokenProblem(decoder(2)), key=jax.random.key(0))
    data = TASK.texts(8, key=jax.random.key(5))

    def loss(network):
        return -jnp.mean(token_log_probabilities(network, data))

    ways = {"stack": stack_last, "silent": insert_fresh(adds_nothing=True)}
    found = choose_operator(state, ways, 1, method=method, source=SOURCE, loss=loss, lag=6)
    assert found.after_lag[found.name] == min(found.after_lag.values())
    assert found.at_once["silent"] == pytest.approx(float(loss(state.network)), rel=1e-5)
    assert found.at_once["stack"] != found.at_once["silent"]
    kept = jax.tree.map(lambda x: x[0], found.state)
    assert kept.network.layer_count == 3 and int(kept.step) == 6
    assert float(loss(kept.network)) == pytest.approx(found.after_lag[found.name], rel=1e-5)
    with pytest.raises(SpecificationError, match="at least one way"):
        choose_operator(state, {}, 1, method=method, source=SOURCE, loss=loss, lag=6)


def test_what_cannot_grow_is_said():
    with pytest.raises(SpecificationError, match="only decoders can be grown"):
        state = SFT().init(TokenProblem(PrefixTable(3, 2)), key=jax.random.key(0))
        grown(state, stack_last, 1, key=jax.random.key(0))
    with pytest.raises(SpecificationError, match="take a divisor"):
        growing_stages(SFT(), SOURCE, layers=5, stages=2, updates=10)
    with pytest.raises(SpecificationError, match="unknown way of growing 'midass'"):
        growing_stages(SFT(), SOURCE, layers=4, stages=2, updates=10, operator="midass")
    with pytest.raises(SpecificationError, match="RaPTr leaves out layers"):
        RaPTr().init(TokenProblem(PrefixTable(3, 2)), key=jax.random.key(0))
