"""Fitted Q evaluation: the action value of a policy, learned from logged transitions.

It lives here and not among the methods because it needs a second method, with its state, to say
what the evaluated policy does: that is a measurement of a policy, not a way to get one.
"""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractLikelihood, AbstractMethod, AbstractPolicy
from headwater.core.spaces import Discrete
from headwater.datasets.dataset import Dataset
from headwater.networks.control.critics import Critic
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.bellman import backup
from headwater.ops.control.gradient_steps import begin, descend, polyak
from headwater.runs.progress import Progress

FIT_UPDATES = 5_000
"""Updates of a fit unless told otherwise."""
_UPDATES_AT_ONCE = 500
"""Updates between which progress is told."""
_ROWS_AT_ONCE = 4096
"""Rows for which a policy is asked at a time: bounds memory, and fills the machine."""


class Choices(eqx.Module):
    """What a policy does in given observations, as weighted actions.

    **Arguments:** `actions`: `[row, choice, action]`, or `None` where the choices are all discrete
    actions; `weights`: `[row, choice]`, adding up to 1.
    """

    actions: Float[Array, "row choice action"] | None
    weights: Float[Array, "row choice"]


class FittedValue(eqx.Module):
    """A learned action value, in units of the reward.

    **Arguments:** `critic`: the network; `normaliser`: of observations; `offset`, `scale`: map its
    output onto the units of the reward.
    """

    critic: Critic
    normaliser: Normaliser
    offset: Float[Array, ""]
    scale: Float[Array, ""]

    def __call__(
        self,
        observation: Float[Array, "*batch observation"],
        action: Float[Array, "*batch action"] | Int[Array, "*batch"],
    ) -> Float[Array, "*batch"]:
        """The value of an action."""
        return self.offset + self.scale * self.critic(self.normaliser(observation), action)

    def expected(
        self, observation: Float[Array, "row observation"], choices: Choices
    ) -> Float[Array, " row"]:
        """The value of an observation: that of its choices, weighted."""
        normalised = self.normaliser(observation)
        return self.offset + self.scale * _expected(self.critic, normalised, choices)


def policy_choices(
    method: AbstractMethod | AbstractPolicy,
    state: Any,
    observations,
    actions: Any,
    *,
    explore: bool,
    samples: int,
    key: PRNGKeyArray,
) -> Choices:
    """What a policy does in each of `observations`.

    Discrete actions of an exploring policy that knows its probabilities are all weighed; otherwise
    `samples` actions are drawn, or the greedy one is taken.

    **Arguments:** `observations`: `[row, observation]`; `actions`: the action space.
    """
    count = actions.size if isinstance(actions, Discrete) else None
    weigh = explore and count is not None and isinstance(method, AbstractLikelihood)
    draws = samples if explore and not weigh else 1
    observations = jnp.asarray(observations)
    return _choices(method, state, observations, key, explore, count, weigh, draws)


@eqx.filter_jit
def _choices(method, state, observations, key, explore, count, weigh, draws):
    def one(row):
        observation, i = row
        if weigh:
            every = jnp.arange(count, dtype=jnp.int32)
            logs = jax.vmap(lambda a: method.log_probability(state, observation, a))(every)
            return None, jax.nn.softmax(logs)
        keys = jax.random.split(jax.random.fold_in(key, i), draws)
        act = lambda k: method.act(state, observation, key=k, explore=explore)[0]
        chosen = jax.vmap(act)(keys)
        if count is not None:
            return None, jnp.mean(jax.nn.one_hot(chosen, count), axis=0)
        return chosen, jnp.full((draws,), 1.0 / draws)

    rows = (observations, jnp.arange(observations.shape[0]))
    return Choices(*jax.lax.map(one, rows, batch_size=_ROWS_AT_ONCE))


@eqx.filter_jit
def log_probabilities(
    method: AbstractLikelihood | AbstractMethod, state: Any, observations, actions
) -> Float[Array, " row"]:
    """Log-probability of each logged action under the exploring policy."""
    one = lambda row: method.log_probability(state, *row)  # pyright: ignore
    rows = (jnp.asarray(observations), jnp.asarray(actions))
    return jax.lax.map(one, rows, batch_size=_ROWS_AT_ONCE)


def fit_value(
    data: Dataset,
    method: AbstractMethod | AbstractPolicy,
    state: Any,
    *,
    discount: float = 0.99,
    explore: bool = False,
    updates: int = FIT_UPDATES,
    batch: int = 256,
    learning_rate: float = 1e-3,
    polyak_rate: float = 0.1,
    hidden_sizes: tuple[int, ...] = (64, 64),
    samples: int = 4,
    resampled: int = 0,
    progress: Progress | None = None,
    key: PRNGKeyArray,
) -> tuple[list[FittedValue], np.ndarray]:
    """Learns the action value of a policy from logged transitions (fitted Q evaluation).

    The target is `r + γ·(1 - terminal)·E Q̄(s', a')` with `a'` chosen by the evaluated policy in the
    *next* observation; discrete actions are summed over, not sampled. Truncated rows bootstrap.
    The defaults are there so that a fit takes seconds; whether larger networks and more updates
    (256 by 256, 10,000) come nearer to the truth was not measured.

    **Arguments:** `data`; `method`, `state`: the policy, without a seed axis; `discount`;
    `explore`: evaluate the exploring policy instead of the greedy one; `updates`, `batch`,
    `learning_rate` (falls to 0 along a cosine), `polyak_rate`, `hidden_sizes`: of the fit;
    `samples`: actions drawn for each next observation where they cannot be summed over;
    `resampled`: how many further fits to make, each on episodes drawn with replacement;
    `progress`: is told of the updates of all fits; `key`.

    **Returns:** the fits, first that on the data as they are; and how often each episode is in the
    data of each fit, `[fit, episode]`.
    """
    if not isinstance(method, AbstractPolicy):
        raise SpecificationError(
            f"{type(method).__name__} is not a policy, so it has no value: evaluate one that is"
        )
    choice_key, fit_key, draw_key = jax.random.split(key, 3)
    next_choices = policy_choices(
        method,
        state,
        data.next_observations,
        data.spaces.action,
        explore=explore,
        samples=samples,
        key=choice_key,
    )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(draw_key)))
    drawn = rng.multinomial(data.episodes, np.full(data.episodes, 1 / data.episodes), resampled)
    lengths = data.episode_lengths()
    counts = np.concatenate([np.ones((1, data.episodes), np.int64), drawn])
    rows = [np.repeat(np.arange(data.size), np.repeat(count, lengths)) for count in counts]
    sizes = np.asarray([own.size for own in rows], np.int32)
    padded = np.stack([np.resize(own, sizes.max()) for own in rows]).astype(np.int32)
    normaliser = Normaliser(data.spaces, True)
    to_go = data.returns_to_go(discount)
    columns = (
        normaliser(jnp.asarray(data.observations)),
        jnp.asarray(data.actions),
        jnp.asarray(data.rewards),
        normaliser(jnp.asarray(data.next_observations)),
        jnp.asarray(data.terminals),
        next_choices,
    )
    offset = jnp.asarray(_constant_value(data, discount), jnp.float32)
    scale = jnp.asarray(max(float(to_go.std()), 1e-6), jnp.float32)
    keys = jax.random.split(fit_key, resampled + 1)
    settings = (data.spaces, updates, batch, hidden_sizes)
    rates = tuple(jnp.asarray(x, jnp.float32) for x in (discount, learning_rate, polyak_rate))
    critics = []
    for own, size, one_key in zip(padded, sizes, keys):
        carry = None
        for done in range(0, updates, _UPDATES_AT_ONCE):
            count, begun = min(_UPDATES_AT_ONCE, updates - done), time.monotonic()
            carry = _fit(
                *(settings, columns, offset, scale, rates, own, size, one_key),
                *(carry, jnp.int32(done), jnp.int32(done + count)),
            )
            if progress is not None:
                jax.block_until_ready(carry)
                progress.advance(count, count / max(time.monotonic() - begun, 1e-9))
        assert carry is not None
        critics.append(carry[1])
    return [FittedValue(critic, normaliser, offset, scale) for critic in critics], counts


def _constant_value(data: Dataset, discount: float) -> float:
    """The constant that satisfies the Bellman equation on average: where the fit begins.

    From here the slowest part of the fit, the overall level, is right at once; the mean return to
    go would be too small in size wherever episodes are truncated.
    """
    onward = discount * (1.0 - float(data.terminals.mean()))
    if onward > 0.9999:
        return float(data.returns_to_go(discount).mean())
    return float(data.rewards.mean(dtype=np.float64)) / (1.0 - onward)


@eqx.filter_jit
def _fit(settings, columns, offset, scale, rates, own_rows, size, key, carry, begun, end):
    """The critic, its target and the optimiser's moments after updates number `begun` to `end`."""
    spaces, updates, batch, hidden_sizes = settings
    discount, learning_rate, polyak_rate = rates
    pace = lambda step: learning_rate * 0.5 * (1.0 + jnp.cos(jnp.pi * step / updates))
    optimiser = optax.adam(pace)
    start_key, row_key = jax.random.split(key)
    if carry is None:
        critic = Critic(spaces, hidden_sizes, key=start_key, layer_norm="before")
        carry = critic, critic, begin(optimiser, critic)

    def update(i, carry):
        critic, target, moments = carry
        draw, pick = jax.random.split(jax.random.fold_in(row_key, i))
        rows = own_rows[jax.random.randint(draw, (batch,), 0, size)]
        observation, action, reward, following, terminal, choices = jax.tree.map(
            lambda column: column[rows], columns
        )
        if choices.actions is not None:
            # One of the drawn actions is as good as all of them, and cheaper.
            one = jax.random.randint(pick, (batch, 1, 1), 0, choices.actions.shape[1])
            chosen = jnp.take_along_axis(choices.actions, one, axis=1)
            choices = Choices(chosen, jnp.ones((batch, 1)))
        next_value = offset + scale * _expected(target, following, choices)
        aim = (backup(reward, discount, terminal, next_value) - offset) / scale
        loss = lambda critic: jnp.mean((critic(observation, action) - aim) ** 2)
        critic, moments = descend(optimiser, jax.grad(loss)(critic), moments, critic)
        return critic, polyak(target, critic, polyak_rate), moments

    return jax.lax.fori_loop(begun, end, update, carry)


def _expected(critic: Critic, observation, choices: Choices) -> Array:
    if choices.actions is None:
        return jnp.sum(choices.weights * critic.values(observation), axis=-1)
    repeated = jnp.broadcast_to(
        observation[:, None], (*choices.weights.shape, observation.shape[-1])
    )
    return jnp.sum(choices.weights * critic(repeated, choices.actions), axis=-1)
