"""The learned policy gradient: an agent's step in NumPy, and the gradient through it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.methods.meta.lpg import LPG
from headwater.parts.meta.agents import PredictingAgent, first_agent, follow_rule, play
from headwater.parts.meta.unrolled import fresh_learners, unrolled_loss

ARMS = 3
METHOD = LPG(
    episodes_per_update=6, unroll_updates=1, num_predictions=2, recurrent_size=3,
    agent_learning_rate=2.0, prediction_learning_rate=0.7, max_gradient_norm=0.1,
    shortest_lifetime=4, longest_lifetime=4,
)  # fmt: skip


def bandits(tasks):
    means = jax.random.uniform(jax.random.key(0), (tasks, 1, 1, ARMS))
    return FiniteProcess(jnp.ones((*means.shape, 1)), means, jnp.ones((tasks, 1)), noisy=True)


def first(tasks):
    return jax.tree.map(lambda x: x[0], tasks)


@pytest.mark.parity
def test_an_agent_takes_the_step_that_the_rule_says():
    problem = FiniteProblem(1, ARMS, 1, tasks=1)
    rule = METHOD.init(problem, key=jax.random.key(1)).rule
    # Whatever it reads, the rule says 0.4 of actions and these logits of predictions.
    said = np.asarray([0.4, 1.0, -0.5], np.float32)
    rule = eqx.tree_at(
        lambda r: (r.head.weights[-1], r.head.biases[-1]),
        rule,
        (jnp.zeros((3, 3)), jnp.asarray(said)),
    )
    task, key = first(bandits(1)), jax.random.key(2)
    start = PredictingAgent(jnp.asarray([[[0.3, 0.0, -0.2]]]), jnp.asarray([[[0.1, 0.6]]]))
    policy = np.exp(start.policy[0, 0]) / np.exp(start.policy[0, 0]).sum()
    actions = np.asarray(play(task, jnp.asarray(policy)[None, None], 6, key=key).action)[:, 0]
    moved, _ = jax.jit(
        lambda rule, agent: follow_rule(
            METHOD, rule, agent, task, jnp.asarray(0), jnp.asarray(4), key=key
        )
    )(rule, start)
    by_action = 0.4 * (np.eye(ARMS)[actions] - policy).mean(axis=0)
    predicted = np.exp(start.prediction[0, 0]) / np.exp(start.prediction[0, 0]).sum()
    target = np.exp(said[1:]) / np.exp(said[1:]).sum()
    apart = np.log(predicted / target)
    by_prediction = -0.5 * predicted * (apart - (predicted * apart).sum())
    norm = np.sqrt((by_action**2).sum() + (by_prediction**2).sum())
    scale = min(1.0, 0.1 / norm)
    assert scale < 1.0
    expected = np.asarray(start.policy[0, 0]) + 2.0 * scale * by_action
    np.testing.assert_allclose(moved.policy[0, 0], expected, atol=1e-6)
    expected = np.asarray(start.prediction[0, 0]) + 0.7 * scale * by_prediction
    np.testing.assert_allclose(moved.prediction[0, 0], expected, atol=1e-6)


@pytest.mark.oracle
def test_the_gradient_is_that_of_what_the_agents_reach():
    state = METHOD.init(FiniteProblem(1, ARMS, 1, tasks=2), key=jax.random.key(3))
    agents = fresh_learners(METHOD, state.agents, bandits(2), key=jax.random.key(4))
    one, task = first(agents), first(agents.tasks(bandits(2)))
    # What was played first does not depend on the rule.
    loss = jax.jit(lambda rule: unrolled_loss(METHOD, rule, one, task, key=jax.random.key(5))[0])
    gradient = jax.jit(jax.grad(loss))(state.rule)
    weight = state.rule.head.weights[-1]
    for place in ((0, 0), (2, 1)):
        ends = [
            float(loss(eqx.tree_at(lambda r: r.head.weights[-1], state.rule,
                                   weight.at[place].add(change))))
            for change in (1e-2, -1e-2)
        ]  # fmt: skip
        slope = (ends[0] - ends[1]) / 2e-2
        np.testing.assert_allclose(gradient.head.weights[-1][place], slope, rtol=0.05, atol=1e-5)


def test_agents_keep_their_tasks_for_a_lifetime():
    problem = FiniteProblem(1, ARMS, 1, tasks=2)
    state = METHOD.init(problem, key=jax.random.key(0))
    update = jax.jit(METHOD.update)
    others = jax.tree.map(lambda x: x[::-1], bandits(2))
    seen = [bandits(2), others, others, others, others]
    rewards = []
    for i, data in enumerate(seen):
        state, _ = update(state, data, key=jax.random.key(i))
        rewards.append(np.asarray(state.agents.reward))
    # Four updates of one are a lifetime.
    for reward in rewards[:4]:
        np.testing.assert_array_equal(reward, bandits(2).reward)
    np.testing.assert_array_equal(rewards[4], others.reward)
    assert np.asarray(state.agents.age).tolist() == [1, 1]
    assert first_agent((1, 1, ARMS), 2).policy.shape == state.agents.agent.policy.shape[1:]
