"""Optimism with a network that all tasks share and weights of each task's own."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative, positive, sizes
from headwater.core.method import AbstractArmPolicy, AbstractMethod, Info
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.networks.mlp import MLP
from headwater.ops.bandits.distributions import best_arms
from headwater.ops.linear_algebra import solve


class SharedModel(eqx.Module):
    """The shared network, and the weights of its last hidden layer for each task."""

    network: MLP
    weights: Float[Array, "task hidden"]

    def features(self, inputs: Float[Array, "*some feature"]) -> Float[Array, "*some hidden"]:
        """What rewards are linear in."""
        return jax.nn.relu(self.network(inputs))


class GFUCBState(eqx.Module):
    """The model, its optimiser, the last pulls of each task, and inverses of their covariances."""

    model: SharedModel
    optimiser: optax.OptState
    inputs: Float[Array, "task row feature"]
    reward: Float[Array, "task row"]
    pulls: Int[Array, " task"]
    inverse: Float[Array, "task hidden hidden"]


class GFUCB(AbstractMethod[Arms, Pulls, GFUCBState], AbstractArmPolicy[GFUCBState]):
    r"""Pulls the arm of the highest $w_i^\top \phi(x_a) + c \|\phi(x_a)\|_{A_i^{-1}}$ in task $i$.

    Rewards of all tasks are linear in the same unknown features $\phi$, the last hidden layer of a
    network that is fitted to the pulls of all of them; $A_i = \lambda I + \sum \phi \phi^\top$ over
    those of task $i$. The context says as a one-hot vector which task a round is of (without one
    there is one task). Every update fits anew, so that a batch should hold several rounds of each
    task: `batch_size` of the source.

    Sharing pays where the features are few and hard to learn from one task. Where tasks have little
    in common it costs: the network then has to hold what each of them needs.

    **Arguments:**

    - `learning_rate`, `weight_decay`: of AdamW.
    - `bonus_scale`: $c$.
    - `ridge`: $\lambda$.
    - `num_steps`: of the optimiser in each update.
    - `batch_size`: rows in each step, drawn uniformly from the tasks and then from their pulls.
    - `memory_size`: pulls of each task that are kept, the last ones.
    - `hidden_sizes`: of the network; the last is that of $\phi$.

    **Reference:** Lu, Zhao, Du and Huang (2022), arXiv:2205.15701.

    **Differences from the paper:** the bonus is that of the last layer, with the network held
    fixed, instead of the largest reward in a set of functions that fit the data nearly as well,
    over which nobody can maximise; tasks come in random order instead of all in each round.
    """

    feed: ClassVar[Feed] = Feed.PULLS
    info: ClassVar[Info] = Info(
        "lu2022provable",
        summary="optimism in features that several bandits share",
        parents=("LinUCB",),
    )

    learning_rate: float = non_negative(3e-3)
    weight_decay: float = non_negative(1e-2)
    bonus_scale: float = non_negative(0.3)
    ridge: float = positive(1.0)
    num_steps: int = integer(60)
    batch_size: int = integer(256)
    memory_size: int = integer(1000)
    hidden_sizes: tuple[int, ...] = sizes((64,))

    def init(self, problem: Arms, *, key: PRNGKeyArray) -> GFUCBState:
        size = problem.require_features("GFUCB")
        tasks, hidden = max(problem.context_size, 1), self.hidden_sizes[-1]
        network_key, weight_key = jax.random.split(key)
        network = MLP(size, hidden, self.hidden_sizes[:-1], key=network_key)
        weights = jax.random.uniform(weight_key, (tasks, hidden), minval=-1.0, maxval=1.0)
        model = SharedModel(network, weights / jnp.sqrt(hidden))
        return GFUCBState(
            model,
            self._optimiser().init(eqx.filter(model, eqx.is_array)),
            jnp.zeros((tasks, self.memory_size, size)),
            jnp.zeros((tasks, self.memory_size)),
            jnp.zeros(tasks, jnp.int32),
            jnp.broadcast_to(jnp.eye(hidden), (tasks, hidden, hidden)) / self.ridge,
        )

    def update(self, state: GFUCBState, data: Pulls, *, key: PRNGKeyArray):
        inputs, reward, pulls = self._remember(state, data)
        kept = jnp.minimum(pulls, self.memory_size)
        known = jnp.log((kept > 0).astype(jnp.float32))
        optimiser = self._optimiser()

        def loss(model: SharedModel, task, row):
            found = jnp.sum(model.features(inputs[task, row]) * model.weights[task], axis=-1)
            return jnp.mean((found - reward[task, row]) ** 2)

        def step(carry, key):
            model, moments = carry
            task_key, row_key = jax.random.split(key)
            task = jax.random.categorical(task_key, known, shape=(self.batch_size,))
            share = jax.random.uniform(row_key, (self.batch_size,))
            row = jnp.minimum((share * kept[task]).astype(jnp.int32), kept[task] - 1)
            value, slope = jax.value_and_grad(loss)(model, task, row)
            change, moments = optimiser.update(slope, moments, model)
            change: Any = change
            return (eqx.apply_updates(model, change), moments), value

        keys = jax.random.split(key, self.num_steps)
        start = state.model, state.optimiser
        (model, moments), values = jax.lax.scan(step, start, keys)
        rows = (jnp.arange(self.memory_size)[None, :] < kept[:, None]).astype(jnp.float32)
        found = model.features(inputs) * rows[..., None]
        covariance = jnp.einsum("trh,trk->thk", found, found)
        covariance += self.ridge * jnp.eye(found.shape[-1])[None]
        inverse = jax.vmap(lambda matrix: solve(matrix, jnp.eye(found.shape[-1])))(covariance)
        state = GFUCBState(model, moments, inputs, reward, pulls, inverse)
        return state, {"squared_error": jnp.mean(values)}

    def probabilities(
        self, state: GFUCBState, context: Array, features: Array, *, key, explore: bool
    ) -> Float[Array, " arm"]:
        task = _task_of(context)
        found = state.model.features(features)
        mean = found @ state.model.weights[task]
        if not explore:
            return best_arms(mean)
        spread = jnp.sum((found @ state.inverse[task]) * found, axis=1)
        return best_arms(mean + self.bonus_scale * jnp.sqrt(jnp.maximum(spread, 0.0)))

    def _optimiser(self) -> optax.GradientTransformation:
        return optax.adamw(self.learning_rate, weight_decay=self.weight_decay)

    def _remember(self, state: GFUCBState, data: Pulls):
        """The memory with the pulls of a batch, each behind those of its task before it."""
        tasks = state.pulls.shape[0]
        task = jax.vmap(_task_of)(data.context)
        own = jax.nn.one_hot(task, tasks, dtype=jnp.int32)
        before = jnp.take_along_axis(jnp.cumsum(own, axis=0), task[:, None], axis=1)[:, 0] - 1
        place = (state.pulls[task] + before) % self.memory_size
        counts = jnp.sum(own, axis=0)
        # What the same batch overwrites is left out: which of two would stay is not defined.
        kept = before >= counts[task] - self.memory_size
        place = jnp.where(kept, place, self.memory_size)
        pulled = jnp.take_along_axis(data.features, data.arm[:, None, None], axis=1)[:, 0]
        return (
            state.inputs.at[task, place].set(pulled, mode="drop"),
            state.reward.at[task, place].set(data.reward, mode="drop"),
            state.pulls + counts,
        )


def _task_of(context: Float[Array, " context"]) -> Int[Array, ""]:
    if not context.shape[0]:
        return jnp.zeros((), jnp.int32)
    return jnp.argmax(context).astype(jnp.int32)
