"""NetLLM: returns that are asked for are reached, and a body is what it was made of."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.core.tokens import TokenProblem
from headwater.datasets.transform import with_trajectory
from headwater.environments.control.pendulum import Pendulum
from headwater.environments.environment import AbstractEnvironment, Step
from headwater.environments.interaction import random_action
from headwater.environments.trajectory import WithTrajectory
from headwater.evaluation.returns import evaluate_returns
from headwater.evidence.logs import record
from headwater.methods.control.offline.netllm import NetLLM
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.low_rank_adapters import Adapted
from headwater.networks.token_table import PrefixTable
from headwater.runs.learn import learn
from headwater.sources.replay import Replay

KEY = jax.random.key(0)


class Paid(AbstractEnvironment):
    """Three steps, each of which brings the number of its action: 0, 1 or 2."""

    name: ClassVar[str] = "paid"
    reference_returns: ClassVar[None] = None

    @property
    def spaces(self):
        return Spaces(Box((0.0,), (3.0,)), Discrete(3), horizon=3)

    def reset(self, *, key):
        return jnp.zeros(()), jnp.zeros(1)

    def step(self, state, action, *, key):
        state = state + 1.0
        terminal = state >= 3.0
        reward = action.astype(jnp.float32)
        return state, Step(state[None], reward, terminal, jnp.zeros((), bool))


def _logged(task, episodes: int, steps: int):
    act = lambda skill, observation, key: random_action(task.spaces, key=key)
    log = record(task, act, np.ones(episodes), steps=task.spaces.horizon, key=KEY)
    return log, with_trajectory(log, steps)


@pytest.mark.oracle
def test_the_return_that_is_asked_for_is_reached():
    log = _logged(Paid(), 400, 3)[1]
    method = NetLLM(
        training="whole",
        learning_rate=3e-3,
        warmup_updates=50.0,
        max_gradient_norm=1.0,
        width=16,
        layers=1,
        heads=2,
    )
    data = jax.tree.map(jnp.asarray, log.transitions(1.0))

    @eqx.filter_jit
    def run(method, spaces, data):
        return learn(method, spaces, Replay(data, 64), 500, key=KEY).state

    states = jax.tree.map(lambda x: x[None], run(method, log.spaces, data))
    task = WithTrajectory(Paid(), 3)
    for asked in (0, 2, 3, 5, 6):
        # Random actions bring anything from 0 to 6, and both ends were logged. As an array, so
        # that one program serves them all.
        sought = eqx.tree_at(lambda m: m.target_return, method, jnp.asarray(asked / 6.0))
        found = evaluate_returns(sought, states, task, episodes=4, key=KEY)
        np.testing.assert_array_equal(found, asked)


@pytest.mark.parity
@pytest.mark.parametrize("task", [Paid(), Pendulum()])
def test_the_loss_is_that_of_the_trajectories_themselves(task):
    steps = 4
    log, windows = _logged(task, 3, steps)
    method = NetLLM(width=16, layers=1, heads=2, normalise_observations=False)
    state = method.init(windows.spaces, key=KEY)
    rows = np.arange(0, log.size, 1 if log.size < 20 else 97)
    batch = jax.tree.map(lambda x: jnp.asarray(x)[rows], windows.transitions(1.0))
    _, metrics = jax.jit(method.update)(state, batch, key=KEY)
    returns = log.episode_returns()
    unit = np.abs(returns).max()
    total = count = 0.0
    network = jax.jit(lambda *given: state.network(*given))
    for row in rows:
        episode = log.episode_of_row[row]
        first = int(max(log.episode_starts[episode], row - steps + 1))
        length = row - first + 1
        seen = log.observations[first : row + 1]
        actions = log.actions[first : row + 1]
        begin = log.episode_starts[episode]
        to_go = [
            returns[episode] - log.rewards[begin:place].sum() for place in np.arange(first, row + 1)
        ]
        done = np.eye(3)[actions] if task.spaces.discrete else actions
        # The same window without steps that there are not.
        found = np.asarray(
            network(
                jnp.asarray(to_go, jnp.float32)[None] / unit,
                jnp.asarray(seen)[None],
                jnp.asarray(done, jnp.float32)[None],
                jnp.ones((1, length), bool),
            )
        )[0]
        if task.spaces.discrete:
            chances = np.exp(found) / np.exp(found).sum(-1, keepdims=True)
            total -= np.log(chances[np.arange(length), actions]).sum()
        else:
            total += ((np.tanh(found) - actions) ** 2).mean(-1).sum()
        count += length
    np.testing.assert_allclose(metrics["actor_loss"], total / count, rtol=1e-4)


def _changed(before, after) -> dict[str, bool]:
    """Which arrays of a network learning changed."""
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(before)]
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after))
    return {name: bool((x != y).any()) for name, (x, y) in zip(names, pairs)}


@pytest.mark.parametrize("training", ["adapters", "whole", "frozen"])
def test_what_is_trained_of_a_language_model_is_what_was_said(training):
    windows = _logged(Paid(), 6, 3)[1]
    decoder = Decoder(Architecture(5, 9, 16, 2, 2), key=KEY)
    tuning = SFT()
    agent = Agent(tuning, tuning.init(TokenProblem(decoder), key=KEY))
    method = NetLLM(training=training, learning_rate=1e-2, adapter_rank=2, warmup_updates=0.0)
    state = method.warm_start(agent, windows.spaces, key=KEY)
    assert state is not None
    held = state.network.body
    held = held.without_adapters() if isinstance(held, Adapted) else held
    same = jax.tree.map(lambda x, y: bool((x == y).all()), held.blocks, decoder.blocks)
    assert all(jax.tree.leaves(same)) and held.vocabulary == 1
    data = jax.tree.map(jnp.asarray, windows.transitions(1.0))
    after = state
    for _ in range(2):
        after, _ = jax.jit(method.update)(after, data, key=KEY)
    changed = _changed(state.network, after.network)
    inside = {name: moved for name, moved in changed.items() if name.startswith(".body")}
    outside = {name: moved for name, moved in changed.items() if name not in inside}
    assert all(outside.values())
    for name, moved in inside.items():
        adapter = name.endswith((".into", ".out_of"))
        learns = {"adapters": adapter, "whole": "embedding" not in name, "frozen": False}
        assert moved == learns[training], name


def test_models_that_do_not_fit_are_refused():
    windows = _logged(Paid(), 4, 3)[1]
    tuning = SFT()
    table = Agent(tuning, tuning.init(TokenProblem(PrefixTable(4, 4, key=KEY)), key=KEY))
    assert NetLLM().warm_start(table, windows.spaces, key=KEY) is None
    with pytest.raises(SpecificationError, match="layers of a decoder, which PrefixTable has not"):
        NetLLM().begin_with(PrefixTable(4, 4, key=KEY), windows.spaces, key=KEY)
    short = Decoder(Architecture(5, 7, 16, 2, 2), key=KEY)
    with pytest.raises(SpecificationError, match="3 steps are 8 positions, and the model has 7"):
        NetLLM().begin_with(short, windows.spaces, key=KEY)
    with pytest.raises(SpecificationError, match="width = 10 over heads = 4"):
        NetLLM(width=10).init(windows.spaces, key=KEY)
