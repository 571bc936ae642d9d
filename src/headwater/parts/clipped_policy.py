"""What methods of clipped policy gradients with a value of every prefix share.

The last step takes the method itself for its `settings`: each of these methods has the
hyper-parameters that `ClippedSettings` lists, as fields with defaults of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import Metrics
from headwater.core.records import Completions
from headwater.core.tokens import AbstractAdapted, AbstractTokenNetwork, TokenProblem
from headwater.networks.value_head import WithValue, with_value
from headwater.ops.control.advantages import generalised_advantages
from headwater.ops.language.rollouts import clipped_loss, sampler_gap, whitened
from headwater.ops.language.tokens import averaged, token_log_probabilities
from headwater.parts.fine_tuning import (
    Schedule,
    Scheduled,
    TuningState,
    begin_tuning,
    schedule_of,
    tune,
)

State = TypeVar("State")
Rows = TypeVar("Rows")


@runtime_checkable
class ClippedSettings(Scheduled, Protocol):
    """The hyper-parameters that `improve_clipped` reads from a method."""

    @property
    def discount(self) -> float: ...
    @property
    def gae_lambda(self) -> float: ...
    @property
    def clip_range(self) -> float: ...
    @property
    def value_clip_range(self) -> float: ...
    @property
    def value_weight(self) -> float: ...
    @property
    def temperature(self) -> float: ...
    @property
    def num_epochs(self) -> int: ...
    @property
    def num_minibatches(self) -> int: ...


class Judgement(NamedTuple):
    """Of each token, before the update.

    **Arguments:** `log_probability`: by the policy that wrote it; `value`: before it; `reference`:
    its log-probability by the policy before training.
    """

    log_probability: Float[Array, "*batch position"]
    value: Float[Array, "*batch position"]
    reference: Float[Array, "*batch position"]


def begin_with_value(problem: TokenProblem, schedule: Schedule, method: str) -> TuningState:
    """The state of a method that trains a policy and its value together, beside a reference."""
    problem.require_hidden(method)
    network = problem.network
    begun = begin_tuning(WithValue(network), schedule, reference=False)
    copied = None
    if not isinstance(network, AbstractAdapted):
        copied = jax.tree.map(jnp.copy, network)
    return TuningState(begun.network, copied, begun.optimiser, begun.step)


def first_policy(state: TuningState) -> AbstractTokenNetwork:
    """The policy before training."""
    network = with_value(state.network).network
    if isinstance(network, AbstractAdapted):
        return network.without_adapters()
    assert state.frozen is not None
    return state.frozen


def judge(
    state: TuningState, data: Completions, temperature: float | Float[Array, ""]
) -> Judgement:
    """What holds before the update.

    The policy that wrote the texts is known by the log-probabilities that come with them; without
    these it is taken to be the present one.
    """
    before = with_value(state.network).judge(data, temperature)
    old = before.log_probability
    if data.log_probability is not None:
        old = jnp.where(jnp.asarray(data.response), jnp.asarray(data.log_probability), 0.0)
    reference = token_log_probabilities(first_policy(state), data, temperature)
    return Judgement(old, before.value, reference)


def improve_clipped(
    settings: ClippedSettings,
    state: TuningState,
    data: Completions,
    before: Judgement,
    reward: Float[Array, "*batch position"],
    valued: Bool[Array, "*batch position"],
    *,
    key: PRNGKeyArray,
) -> tuple[TuningState, Metrics]:
    """Epochs of steps of the policy up the clipped advantage and of the value towards the returns.

    **Arguments:** `reward`: on choosing each token; `valued`: tokens over which advantages are
    estimated and the value is learned; the policy is on those of responses.
    """
    response, value = jnp.asarray(data.response), before.value
    advantage = generalised_advantage(reward, value, valued, settings.discount, settings.gae_lambda)
    target = advantage + value
    advantage = whitened(advantage, response)

    def step(state: TuningState, rows):
        data, valued, old, advantage, value, target = rows
        response = data.response

        def loss(network: AbstractTokenNetwork):
            own, now = with_value(network).judge(data, settings.temperature)
            gains, bounded = clipped_loss(
                own - old, advantage, settings.clip_range, settings.clip_range
            )
            errors = clipped_value_loss(now, value, target, settings.value_clip_range)
            policy_loss = averaged(gains, response, "token")
            value_loss = averaged(errors, valued, "token")
            return policy_loss + settings.value_weight * value_loss, {
                "policy_loss": policy_loss,
                "value_loss": value_loss,
                "clipped": averaged(bounded.astype(jnp.float32), response, "token"),
                "sampler_gap": sampler_gap(own, old, response),
            }

        return tune(state, schedule_of(settings), loss)

    texts = Completions(jnp.asarray(data.tokens), response)
    rows = jax.tree.map(
        lambda x: x.reshape(-1, x.shape[-1]),
        (texts, valued, before.log_probability, advantage, value, target),
    )
    return minibatch_epochs(
        step,
        state,
        rows,
        num_epochs=settings.num_epochs,
        num_minibatches=settings.num_minibatches,
        key=key,
    )


def last_tokens(response: Bool[Array, "*batch position"]) -> Bool[Array, "*batch position"]:
    """True at the last token of each response."""
    return response & ~_later(response)


def texts(response: Bool[Array, "*batch position"]) -> Bool[Array, "*batch position"]:
    """True on every token up to the end of the response, but the first, which follows nothing."""
    whole = response | _later(response)
    return whole.at[..., 0].set(False)


def _later(response):
    """Where a token of the response is still to come."""
    from_here = jnp.flip(jnp.cumsum(jnp.flip(response, -1), axis=-1), -1)
    return from_here - response > 0


def generalised_advantage(
    reward: Float[Array, "*batch position"],
    value: Float[Array, "*batch position"],
    mask: Bool[Array, "*batch position"],
    discount: float | Float[Array, ""],
    gae_lambda: float | Float[Array, ""],
) -> Float[Array, "*batch position"]:
    """Generalised advantage estimates of the tokens where `mask`, unbroken in each row, is true.

    **Arguments:** `reward`: on choosing each token; `value`: before choosing it; `gae_lambda`: λ.
    """
    value = jnp.where(mask, value, 0.0)
    after = jnp.concatenate([value[..., 1:], jnp.zeros_like(value[..., :1])], axis=-1)
    surprise = jnp.where(mask, reward + discount * after - value, 0.0)
    moved = jnp.moveaxis(surprise, -1, 0), jnp.moveaxis(mask, -1, 0)
    return jnp.moveaxis(generalised_advantages(*moved, discount * gae_lambda), 0, -1)


def clipped_value_loss(
    value: Float[Array, "*batch"],
    old: Float[Array, "*batch"],
    target: Float[Array, "*batch"],
    clip_range: float | Float[Array, ""],
) -> Float[Array, "*batch"]:
    """Half the squared error, or that of the value held within `clip_range` of the old, if more."""
    bounded = jnp.clip(value, old - clip_range, old + clip_range)
    return 0.5 * jnp.maximum((value - target) ** 2, (bounded - target) ** 2)


def minibatch_epochs(
    step: Callable[[State, Any], tuple[State, Metrics]],
    state: State,
    rows: Any,
    *,
    num_epochs: int,
    num_minibatches: int,
    key: PRNGKeyArray,
) -> tuple[State, Metrics]:
    """Goes `num_epochs` times through `rows`, in `num_minibatches` parts drawn anew each time.

    **Returns:** the last state and the mean metrics, but the first `sampler_gap`. Raises
    `SpecificationError` if the rows cannot be divided.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    if count % num_minibatches:
        raise SpecificationError(
            f"{count} rows cannot be divided into {num_minibatches} minibatches"
        )

    def parts(key):
        if num_minibatches == 1:
            return jax.tree.map(lambda x: x[None], rows)
        order = jax.random.permutation(key, count).reshape(num_minibatches, -1)
        return jax.tree.map(lambda x: x[order], rows)

    def epoch(state, key):
        return jax.lax.scan(step, state, parts(key))

    state, metrics = jax.lax.scan(epoch, state, jax.random.split(key, num_epochs))
    first = {"sampler_gap": metrics["sampler_gap"][0, 0]} if "sampler_gap" in metrics else {}
    return state, {**jax.tree.map(jnp.mean, metrics), **first}
