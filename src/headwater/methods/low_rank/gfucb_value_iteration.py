"""Optimistic value iteration in features that several processes share and that are learned."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative, positive, sizes
from headwater.core.finite import FiniteProblem
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.networks.mlp import MLP
from headwater.ops.control.gradient_steps import descend
from headwater.ops.linear.least_squares import check_features, one_hot_features
from headwater.ops.linear_algebra import solve
from headwater.ops.tabular.counts import Counts, at_least_once, count, mean_unit_reward, no_counts
from headwater.ops.tabular.planning import greedy_table


class SharedStep(eqx.Module):
    """One step's network, which all tasks share, and each task's weights of its last layer."""

    network: MLP
    weights: Float[Array, "task hidden"]

    def features(self, inputs: Float[Array, "*some feature"]) -> Float[Array, "*some hidden"]:
        """What values are linear in."""
        return jax.nn.relu(self.network(inputs))


class GFUCBValueIterationState(eqx.Module):
    """A model for each step and its optimiser, counts of each task, and optimistic values.

    `model` and `optimiser` have a leading axis for steps of the horizon; `inputs` are what is seen;
    values are of rewards rescaled to [0, 1].
    """

    model: SharedStep
    optimiser: optax.OptState
    inputs: Float[Array, "horizon state action feature"]
    counts: Counts
    action_value: Float[Array, "task horizon state action"]
    problem: FiniteProblem


class GFUCBValueIteration(
    AbstractMethod[FiniteProblem, Episodes, GFUCBValueIterationState],
    AbstractTablePolicy[GFUCBValueIterationState],
):
    r"""Fits the values of several processes with one network and weights of each task's own.

    From the last step back, $\phi_h, w_h^{1:M} = \arg\min \sum_i \sum_\tau (w^{i\top}
    \phi(x_h^\tau, a_h^\tau) - r_h^\tau - \max_a Q_{h+1}^i(s_{h+1}^\tau, a))^2$ over all episodes
    so far, and $Q_h^i = \min\{w_h^{i\top} \phi_h + c \|\phi_h\|_{(A_h^i)^{-1}}, H - h\}$ with
    $A_h^i = \lambda I + \sum \phi \phi^\top$ over the steps of task $i$. Every task acts greedily
    in its own $Q$. A process alone is one task.

    The problem's `features` are what the networks see; without any, which state and action it is.

    **Arguments:**

    - `learning_rate`, `weight_decay`: of AdamW.
    - `bonus_scale`: $c$.
    - `ridge`: $\lambda$, of the weights too: they are the least squares' in the features found.
    - `num_steps`: of the optimiser for each step of the horizon in each update.
    - `episodes_per_update`: of each task.
    - `hidden_sizes`: of the networks; the last is that of $\phi$: the fewer, the less each task
      has to learn of its own.

    **Reference:** Lu, Zhao, Du and Huang (2022), arXiv:2205.15701, the extension to MDPs.

    **Differences from the paper:** the bonus is that of the last layer, with the network held
    fixed, at every step of the horizon, instead of the largest value of the first states over
    sequences of functions that fit the data nearly as well, over which nobody can maximise; states
    are finite, so that counts hold all data and every step takes the whole loss.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "lu2022provable",
        summary="optimistic value iteration in features that several processes share",
        parents=("GFUCB", "LSVIUCB"),
    )

    learning_rate: float = non_negative(3e-3)
    weight_decay: float = non_negative(1e-2)
    bonus_scale: float = non_negative(0.1)
    ridge: float = positive(1.0)
    num_steps: int = integer(40)
    episodes_per_update: int = integer(10)
    hidden_sizes: tuple[int, ...] = sizes((64, 8))

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> GFUCBValueIterationState:
        tasks = problem.tasks or 1
        inputs, hidden = _seen(problem), self.hidden_sizes[-1]

        def begin(key):
            network_key, weight_key = jax.random.split(key)
            network = MLP(inputs.shape[-1], hidden, self.hidden_sizes[:-1], key=network_key)
            weights = jax.random.uniform(weight_key, (tasks, hidden), minval=-1.0, maxval=1.0)
            return SharedStep(network, weights / jnp.sqrt(hidden))

        model = jax.vmap(begin)(jax.random.split(key, problem.horizon))
        counts = jax.tree.map(lambda x: jnp.zeros((tasks, *x.shape), x.dtype), no_counts(problem))
        optimiser = jax.vmap(lambda m: self._optimiser().init(m))(model)
        nothing = jnp.zeros((problem.horizon, tasks, problem.states, problem.actions))
        value = jax.vmap(self._optimistic)(model, inputs, nothing, nothing, _steps_left(problem))
        value = jnp.swapaxes(value, 0, 1)
        return GFUCBValueIterationState(model, optimiser, inputs, counts, value, problem)

    def update(self, state: GFUCBValueIterationState, data: Episodes, *, key: PRNGKeyArray):
        problem, known = state.problem, state.problem.reward
        if problem.tasks is None:
            data = jax.tree.map(lambda x: x[None], data)
        counts = jax.vmap(lambda c, d: count(c, d, problem))(state.counts, data)
        reward = jax.vmap(mean_unit_reward)(counts)
        if known is not None:
            reward = problem.in_unit(known).reshape(reward.shape)

        def one(value, step):
            model, moments, inputs, visits, following, reward, left = step
            target = jnp.einsum("isat,it->isa", following, value) / at_least_once(visits) + reward
            model, moments, errors = self._fit(model, moments, inputs, visits, target)
            action_value = self._optimistic(model, inputs, visits, target, left)
            return jnp.max(action_value, axis=-1), (model, moments, action_value, errors)

        each = (jnp.swapaxes(x, 0, 1) for x in (counts.visits, counts.following, reward))
        steps = (state.model, state.optimiser, state.inputs, *each, _steps_left(problem))
        last = jnp.zeros((len(counts.visits), problem.states))
        _, (model, moments, value, errors) = jax.lax.scan(one, last, steps, reverse=True)
        value = jnp.swapaxes(value, 0, 1)
        state = GFUCBValueIterationState(model, moments, state.inputs, counts, value, problem)
        earned = jnp.mean(jnp.sum(data.reward, -1))
        return state, {"return": earned, "squared_error": jnp.mean(errors)}

    def policy(self, state: GFUCBValueIterationState, *, explore: bool):
        chosen = greedy_table(state.action_value)[0]
        if explore:
            chosen = jnp.repeat(chosen[:, None], self.episodes_per_update, axis=1)
        return chosen[0] if state.problem.tasks is None else chosen

    def _fit(self, model: SharedStep, moments, inputs: Array, visits: Array, target: Array):
        """The model of one step after some steps of the optimiser; mean squared errors."""
        share = visits / jnp.maximum(jnp.sum(visits), 1)

        def loss(model: SharedStep):
            found = jnp.einsum("sak,ik->isa", model.features(inputs), model.weights)
            return jnp.sum(share * (found - target) ** 2)

        def step(carry, _):
            model, moments = carry
            error, slope = jax.value_and_grad(loss)(model)
            return descend(self._optimiser(), slope, moments, model), error

        (model, moments), errors = jax.lax.scan(step, (model, moments), length=self.num_steps)
        return model, moments, jnp.mean(errors)

    def _optimistic(
        self, model: SharedStep, inputs: Array, visits: Array, target: Array, left: Array
    ) -> Float[Array, "task state action"]:
        """Least squares in the features found, with the bonus, for one step."""
        found = model.features(inputs).reshape(-1, model.weights.shape[-1])

        def one(visits, target):
            visits, target = visits.reshape(-1).astype(jnp.float32), target.reshape(-1)
            identity = jnp.eye(found.shape[-1])
            inverse = solve(found.T @ (visits[:, None] * found) + self.ridge * identity, identity)
            mean = found @ (inverse @ (found.T @ (visits * target)))
            spread = jnp.maximum(jnp.sum((found @ inverse) * found, axis=-1), 0.0)
            return jnp.minimum(mean + self.bonus_scale * jnp.sqrt(spread), left)

        return jax.vmap(one)(visits, target).reshape(visits.shape)

    def _optimiser(self) -> optax.GradientTransformation:
        return optax.adamw(self.learning_rate, weight_decay=self.weight_decay)


def _seen(problem: FiniteProblem) -> Float[Array, "horizon state action feature"]:
    """What the networks see. Raises `SpecificationError` if it does not fit, or tasks differ."""
    features = problem.features
    if features is None:
        return one_hot_features(problem)
    if problem.tasks is not None:
        if not isinstance(features, Tracer) and np.ptp(np.asarray(features), axis=0).any():
            raise SpecificationError("GFUCBValueIteration: give all tasks the same features")
        features = features[0]
    return check_features(features, problem, "GFUCBValueIteration")


def _steps_left(problem: FiniteProblem) -> Float[Array, " horizon"]:
    return jnp.arange(problem.horizon, 0, -1, dtype=jnp.float32)
