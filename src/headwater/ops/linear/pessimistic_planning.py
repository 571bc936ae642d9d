"""Planning for the worst reward of a set: the best policy when only a set of rewards is known.

Both problems here are concave in the occupancy of a policy, so that their answer is one randomised
policy, with a bound on how far it is from the best: exact planning for single rewards is enough to
solve them.
"""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from headwater.core.finite import FiniteProcess
from headwater.ops.linear.elliptical import elliptical_norm
from headwater.ops.linear_algebra import cholesky, cholesky_solve, triangular_solve
from headwater.ops.tabular.planning import expected_return, occupancy, optimal_values


class PessimisticPlan(eqx.Module):
    """A randomised policy.

    **Arguments:** `policy`; `value`: its worst case; `gap`: how much more the worst case of any
    other policy is at most.
    """

    policy: Float[Array, "horizon state action"]
    value: Float[Array, ""]
    gap: Float[Array, ""]


_CORRECTIONS = 30
"""Steps over the policies planned so far, which cost next to nothing, after each plan."""
_ROUNDED = 0.3, 1e-3
"""Below which length the tip of the norm is rounded off, so that it has a gradient there: at first,
and from the middle of the iterations on."""
_ENOUGH = 1e-3
"""The gap at which nothing is changed any more."""


def plan_against_ellipsoid(
    model: FiniteProcess,
    features: Float[Array, "horizon state action feature"],
    *,
    weights: Float[Array, " feature"],
    precision: Float[Array, "feature feature"],
    width: float | Float[Array, ""],
    reference: Float[Array, " feature"],
    iterations: int,
) -> PessimisticPlan:
    r"""$\max_\pi \min_\theta \langle\phi(\pi) - \phi_{ref}, \theta\rangle + J(\pi)$ over
    $\|\theta - \hat\theta\|_\Lambda \le \beta$.

    The minimum is $\langle x, \hat\theta\rangle - \beta \|x\|_{\Lambda^{-1}}$ with $x = \phi(\pi) -
    \phi_{ref}$. The maximum is found by a method of Frank and Wolfe's (1956) kind: plan exactly for
    the reward that is worst for the mixture so far, add that policy, move shares from the worst
    policies of the mixture to its best. No policy has a better worst case than the best return
    under a single reward of the ellipsoid, which gives the gap.

    **Arguments:** `model`: its reward, known for certain, is J; `weights`: $\hat\theta$;
    `precision`: Λ, positive definite; `width`: β; `reference`: expected features that a policy is
    compared with; `iterations`: plans to make at most.
    """
    root = cholesky(precision)

    def plan(direction):
        reward = model.reward + features @ direction
        occupied = occupancy(model, optimal_values(replace(model, reward=reward)).policy)
        away = jnp.einsum("hsa,hsaf->f", occupied, features) - reference
        return occupied, away, jnp.sum(occupied * model.reward)

    def rounded(i):
        first, last = _ROUNDED
        return jnp.maximum(first * (last / first) ** (2.0 * i / iterations), last)

    def assess(i, shares, aways, certain):
        """The reward that is worst for a mixture, and the mixture's worst case."""
        away = shares @ aways
        doubt = elliptical_norm(away, precision)
        length = jnp.sqrt(jnp.square(doubt) + rounded(i) ** 2)
        direction = weights - width * cholesky_solve(root, away) / length
        return direction, away @ weights + shares @ certain - width * doubt

    def one(i, given):
        shares, occupied, aways, certain = given
        direction, value = assess(i, shares, aways, certain)
        new = plan(direction)
        enough = new[1] @ direction + new[2] - value <= _ENOUGH
        occupied, aways, certain = (
            old.at[i].set(added) for old, added in zip((occupied, aways, certain), new)
        )
        whitened = triangular_solve(root, aways.T).T
        gains = aways @ weights + certain
        present = jnp.arange(iterations) <= i
        moved = _move_shares(shares, gains, whitened, present, width, rounded(i))
        return jnp.where(enough, shares, moved), occupied, aways, certain

    first = plan(weights)
    empty = jax.tree.map(lambda x: jnp.zeros((iterations, *x.shape)).at[0].set(x), first)
    shares = jnp.zeros(iterations).at[0].set(1.0)
    shares, occupied, aways, certain = jax.lax.fori_loop(1, iterations, one, (shares, *empty))
    direction, value = assess(iterations, shares, aways, certain)
    _, away, sure = plan(direction)
    mixture = jnp.einsum("k,khsa->hsa", shares, occupied)
    gap = jnp.maximum(away @ direction + sure - value, 0.0)
    return PessimisticPlan(_policy_of(mixture), value, gap)


def _move_shares(
    shares: Float[Array, " member"],
    gains: Float[Array, " member"],
    away: Float[Array, "member feature"],
    present: Bool[Array, " member"],
    width: float | Float[Array, ""],
    rounded: Float[Array, ""],
) -> Float[Array, " member"]:
    """Raises `shares @ earned - width * |shares @ away|`, from the worst member to the best."""

    def one(_, shares):
        mixed = shares @ away
        square = jnp.sum(jnp.square(mixed)) + jnp.square(rounded)
        slopes = gains - width * (away @ mixed) / jnp.sqrt(square)
        to = jnp.argmax(jnp.where(present, slopes, -jnp.inf))
        source = jnp.argmin(jnp.where(shares > 0.0, slopes, jnp.inf))
        # Along the line from one to the other the best step has a closed form.
        line, rise = away[to] - away[source], gains[to] - gains[source]
        bend, tilt = jnp.sum(jnp.square(line)), jnp.sum(line * mixed)
        rest = jnp.maximum(bend * square - jnp.square(tilt), 0.0)
        steep = jnp.square(width) * bend - jnp.square(rise)
        best = rise * jnp.sqrt(rest / jnp.maximum(steep, 1e-20)) - tilt
        best = jnp.where(steep > 0.0, best / jnp.maximum(bend, 1e-20), jnp.inf)
        step = jnp.clip(best, 0.0, shares[source])
        step = jnp.where(slopes[to] > slopes[source], step, 0.0)
        return shares.at[to].add(step).at[source].add(-step)

    return jax.lax.fori_loop(0, _CORRECTIONS, one, shares)


def plan_against_rewards(
    model: FiniteProcess,
    rewards: Float[Array, "member horizon state action"],
    *,
    reference: Float[Array, " member"],
    possible: Bool[Array, " member"],
    iterations: int,
) -> PessimisticPlan:
    r"""$\max_\pi \min_i J(\pi; r_i) - c_i$ over the rewards that are `possible`.

    A game that is played `iterations` times: one side weighs the rewards by exponential weights,
    the other plans exactly for the weighted reward; the mean of its occupancies is the policy.

    **Arguments:** `model`: its reward does not matter; `rewards`: the class; `reference`: c;
    `possible`: which members count, at least one.
    """
    spread = jnp.max(rewards, (2, 3)) - jnp.min(rewards, (2, 3))
    widest = jnp.maximum(jnp.max(jnp.sum(spread, axis=1)), 1e-6)
    rate = jnp.sqrt(8.0 * jnp.log(1.0 + jnp.sum(possible)) / iterations) / widest

    def shares(losses):
        return jax.nn.softmax(jnp.where(possible, -losses, -jnp.inf))

    def excess(occupied):
        return jnp.einsum("hsa,mhsa->m", occupied, rewards) - reference

    def one(carry, _):
        total, occupied, weight = carry
        share = shares(rate * total)
        reward = jnp.einsum("m,mhsa->hsa", share, rewards)
        best = occupancy(model, optimal_values(replace(model, reward=reward)).policy)
        return (total + excess(best), occupied + best, weight + share), None

    zero = jnp.zeros(rewards.shape[0]), jnp.zeros(rewards.shape[1:]), jnp.zeros(rewards.shape[0])
    (_, occupied, weight), _ = jax.lax.scan(one, zero, length=iterations)
    occupied, weight = occupied / iterations, weight / iterations
    value = jnp.min(jnp.where(possible, excess(occupied), jnp.inf))
    reward = jnp.einsum("m,mhsa->hsa", weight, rewards)
    best = replace(model, reward=reward)
    highest = expected_return(best, optimal_values(best).policy) - weight @ reference
    return PessimisticPlan(_policy_of(occupied), value, jnp.maximum(highest - value, 0.0))


def _policy_of(occupied: Float[Array, "horizon state action"]):
    """The policy that has this occupancy; uniform where it never comes."""
    visited = jnp.sum(occupied, axis=-1, keepdims=True)
    uniform = 1.0 / occupied.shape[-1]
    return jnp.where(visited > 0.0, occupied / jnp.where(visited > 0.0, visited, 1.0), uniform)
