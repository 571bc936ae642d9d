"""Campaigns: a budget of pulls in which a sampler looks for the best arm of each instance."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from headwater.core.finite import draw_index
from headwater.networks.meta.sampler import Sampler


class Campaigns(eqx.Module):
    """What was pulled, one campaign in each instance.

    **Arguments:** `pulls`, `earned`: sums for each arm, before each pull and after the last; `arm`:
    that was pulled.
    """

    pulls: Float[Array, "moment instance arm"]
    earned: Float[Array, "moment instance arm"]
    arm: Int[Array, "pull instance"]


def campaigns(
    sampler: Sampler, means: Float[Array, "instance arm"], uniform: Float[Array, "instance pull 2"]
) -> Campaigns:
    """One campaign in each instance.

    **Arguments:** `means`: of rewards that are zero or one; `uniform`: random numbers in [0, 1),
    for each pull the one that chooses the arm and the one that pays.
    """
    budget = uniform.shape[1]

    def pull(sums, given):
        drawn, left = given
        pulls, earned = sums
        logits = sampler(pulls, earned, jnp.full(means.shape[0], left))[0]
        arm = jax.vmap(draw_index)(jax.nn.softmax(logits), drawn[:, 0])
        chosen = jax.nn.one_hot(arm, means.shape[-1])
        reward = drawn[:, 1] < jnp.sum(chosen * means, axis=-1)
        after = pulls + chosen, earned + chosen * reward[:, None]
        return after, (*after, arm)

    left = 1.0 - jnp.arange(budget) / budget
    start = jnp.zeros_like(means)
    _, (pulls, earned, arm) = jax.lax.scan(
        pull, (start, start), (jnp.swapaxes(uniform, 0, 1), left)
    )
    pulls, earned = (jnp.concatenate([start[None], x]) for x in (pulls, earned))
    return Campaigns(pulls, earned, arm)


def slopes(
    sampler: Sampler,
    means: Float[Array, "particle arm"],
    losses: Float[Array, " particle"],
    weights: Float[Array, " particle"],
    uniform: Float[Array, "instance pull 2"],
) -> tuple[Sampler, Float[Array, " particle"], Float[Array, "particle arm"]]:
    """What a loss is in some instances, and how it changes with the sampler and with the means.

    The loss is the probability that the recommended arm is not the best. Estimates are those of
    the score function, with a baseline.

    **Arguments:** `losses`: about as large as they are, the baseline; `weights`: of the instances;
    `uniform`: see `campaigns`, for equally many campaigns in each instance.

    **Returns:** the gradient of the weighted loss; the loss in each instance, and its gradient in
    the logits of the means.
    """
    times = uniform.shape[0] // means.shape[0]
    repeated, baseline, shares = (
        jnp.repeat(x, times, axis=0) for x in (means, losses, weights / times)
    )
    made = campaigns(sampler, repeated, uniform)
    best = jnp.argmax(repeated, axis=-1)

    def loss(sampler: Sampler):
        pulling, recommending = _logits(sampler, made)
        log = jax.nn.log_softmax(pulling[:-1])
        taken = jnp.sum(jnp.take_along_axis(log, made.arm[..., None], axis=-1)[..., 0], axis=0)
        last = jax.nn.softmax(recommending[-1])
        wrong = 1.0 - jnp.take_along_axis(last, best[:, None], axis=-1)[:, 0]
        more = jax.lax.stop_gradient(wrong - baseline)
        return jnp.sum(shares * (wrong + more * taken)), wrong

    gradients, wrong = jax.grad(loss, has_aux=True)(sampler)
    surprise = made.earned[-1] - made.pulls[-1] * repeated
    scores = jnp.broadcast_to((wrong - baseline)[:, None], surprise.shape) * surprise
    by_instance = (x.reshape(len(means), times, -1) for x in (wrong, scores))
    wrong, scores = (jnp.mean(x, axis=1) for x in by_instance)
    return gradients, wrong[:, 0], scores


def recommended(
    sampler: Sampler, means: Float[Array, "instance arm"], uniform: Float[Array, "instance pull 2"]
) -> Float[Array, "moment instance arm"]:
    """How probably each arm is recommended in a campaign, before each pull and after the last.

    **Arguments:** as those of `campaigns`.
    """
    made = campaigns(sampler, means, uniform)
    return jax.nn.softmax(_logits(sampler, made)[1])


def _logits(sampler: Sampler, made: Campaigns):
    """Of pulling and of recommending each arm, before each pull and after the last."""
    moments, instances, _ = made.pulls.shape
    left = jnp.linspace(1.0, 0.0, moments)
    return sampler(made.pulls, made.earned, jnp.broadcast_to(left[:, None], (moments, instances)))
