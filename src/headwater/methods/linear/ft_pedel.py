"""FTPedel: just the episodes that a log lacks, to tell which of many policies is the best."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import integer, positive, probability
from headwater.core.finite import FiniteProblem
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.linear.least_squares import (
    FeatureSums,
    add_episodes,
    features_of,
    fitted_values,
    no_sums,
)
from headwater.ops.linear_algebra import solve
from headwater.ops.tabular.planning import greedy_table

_Policies = Float[Array, "policy horizon state action"]


class FTPedelState(eqx.Module):
    """The data's sums, and the policies that are left.

    **Arguments:** `value`: estimated, of rewards in [0, 1]; `epoch`: from one on; `finished`: the
    policies that are left are good enough.
    """

    problem: FiniteProblem
    features: Float[Array, "horizon state action feature"]
    policies: _Policies
    sums: FeatureSums
    active: Bool[Array, " policy"]
    value: Float[Array, " policy"]
    epoch: Int[Array, ""]
    finished: Bool[Array, ""]


class FTPedel(AbstractMethod[FiniteProblem, Episodes, FTPedelState], AbstractTablePolicy):
    r"""Drops policies from a class until those that are left are within ε of the best of it.

    In epoch $l$, until $\max_{\pi, h} \|\hat\phi_{\pi, h}\|^2_{\Lambda_h^{-1}} \le \epsilon_l^2 /
    \beta_l$ over the policies left, with $\epsilon_l = H 2^{-l}$ and $\beta_l = c H^2
    \ln(4 H^2 |\Pi| l^2 / \delta)$, it explores: with $\pi, h$ of the maximum, episodes of the
    policy of most $(\phi^\top \Lambda_h^{-1} \hat\phi_{\pi, h})^2$ at step $h$ in the fitted
    process. Then it drops the policies whose estimated value is more than $2 \epsilon_l$ below the
    highest, and ends with the first $\epsilon_l \le \epsilon / 4$. The features that a policy
    expects, $\hat\phi_{\pi, h+1} = \sum \phi_{\pi, h+1}(s') \phi^\top \Lambda_h^{-1} \hat\phi_{\pi,
    h}$, and rewards are regressed on all data.

    Episodes of a log, learned from before the first of its own, count as if they had been played,
    so that only what the log does not cover is explored. From a log alone the best policy may be
    found without it being certain: `finished` of the state says whether it is.

    **Arguments:**

    - `accuracy`: ε, in rewards of [0, 1].
    - `width_factor`: c.
    - `failure_probability`: δ.
    - `ridge`: λ of $\Lambda_h = \lambda I + \sum \phi \phi^\top$.
    - `num_policies`: drawn for the class: each takes the action of the highest $\phi^\top w_h$ with
      a normal $w_h$. `with_policies` starts from a class of one's own.
    - `num_explored`: episodes in an update.

    **Reference:** Wagenmaker and Pacchiano (2022), arXiv:2211.04974.

    **Differences from the paper:** the exploring policy is planned greedily for the one policy and
    step that is known least, where the paper minimises regret on the gradient of the whole design;
    $c$ is 2 and not about 64; $\epsilon_l$ is in units of the horizon; known rewards are regressed.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "wagenmaker2022leveraging",
        summary="just the episodes that a log lacks, to find the best of many policies",
        parents=("LSVIUCB",),
    )

    accuracy: float = positive(0.1)
    width_factor: float = positive(2.0)
    failure_probability: float = probability(0.1)
    ridge: float = positive(1e-2)
    num_policies: int = integer(64)
    num_explored: int = integer(20)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> FTPedelState:
        problem.require_one_task("FTPedel")
        features = features_of(problem, "FTPedel")
        weights = jax.random.normal(key, (self.num_policies, features.shape[0], features.shape[-1]))
        scores = jnp.einsum("hsaf,phf->phsa", features, weights)
        return self.with_policies(problem, greedy_table(scores)[0])

    def with_policies(self, problem: FiniteProblem, policies: _Policies) -> FTPedelState:
        """The state before any data, with a class of one's own.

        Raises `SpecificationError` if the policies do not fit the problem.
        """
        problem.require_initial("FTPedel")
        if policies.ndim != 4 or policies.shape[1:] != problem.sizes:
            horizon, states, actions = problem.sizes
            raise SpecificationError(
                f"FTPedel got policies of shape {policies.shape}, but the problem has {horizon} "
                f"steps, {states} states and {actions} actions: they must be (policies, {horizon}, "
                f"{states}, {actions})"
            )
        features, count = features_of(problem, "FTPedel"), policies.shape[0]
        return FTPedelState(
            problem,
            features,
            policies.astype(jnp.float32),
            no_sums(features),
            jnp.ones(count, bool),
            jnp.zeros(count),
            jnp.ones((), jnp.int32),
            jnp.asarray(False),
        )

    def update(self, state: FTPedelState, data: Episodes, *, key: PRNGKeyArray):
        steps = state.features.shape[0]
        sums = add_episodes(state.sums, state.features, data, state.problem)
        state = eqx.tree_at(lambda s: s.sums, state, sums)
        inverse, expected, turned = self._known(state)
        weights = jnp.einsum("hfg,hg->hf", inverse, sums.reward.total)
        value = jnp.einsum("phf,hf->p", expected, weights)
        width = jnp.sum(turned * expected, axis=-1)
        epoch = state.epoch.astype(jnp.float32)
        level = steps * 2.0**-epoch
        log = jnp.log(4.0 * steps**2 * len(state.policies) * epoch**2 / self.failure_probability)
        enough = level**2 / (self.width_factor * steps**2 * log)
        known = jnp.max(jnp.where(state.active[:, None], width, 0.0)) <= enough
        over = known & ~state.finished
        best = jnp.max(jnp.where(state.active, value, -jnp.inf))
        kept = state.active & (value >= best - 2.0 * level)
        active = jnp.where(over, kept, state.active)
        finished = state.finished | (over & (level <= 0.25 * self.accuracy))
        epochs = state.epoch + over.astype(jnp.int32)
        metrics = {
            "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
            "policies_left": jnp.sum(active).astype(jnp.float32),
            "finished": finished.astype(jnp.float32),
        }
        state = FTPedelState(
            state.problem, state.features, state.policies, sums, active, value, epochs, finished
        )
        return state, metrics

    def policy(self, state: FTPedelState, *, explore: bool):
        if not explore:
            return state.policies[jnp.argmax(jnp.where(state.active, state.value, -jnp.inf))]
        plan = self._plan(state)
        return jnp.broadcast_to(plan, (self.num_explored, *plan.shape))

    def _plan(self, state: FTPedelState) -> Float[Array, "horizon state action"]:
        """Towards what is known least of the policies that are left."""
        steps = state.features.shape[0]
        _, expected, turned = self._known(state)
        width = jnp.sum(turned * expected, axis=-1)
        least = jnp.argmax(jnp.where(state.active[:, None], width, -1.0))
        policy, step = least // steps, least % steps
        towards = jnp.einsum("saf,f->sa", state.features[step], turned[policy, step]) ** 2
        here = jnp.arange(steps)[:, None, None] == step
        reward = jnp.where(here, towards[None], 0.0)
        limits = {"low": 0.0, "high": jnp.max(towards)}
        fitted = fitted_values(
            state.sums, state.features, reward, ridge=self.ridge, radius=0.0, **limits
        )
        return greedy_table(fitted.action_value)[0]

    def _known(self, state: FTPedelState) -> tuple[Array, Array, Array]:
        """Inverses of the covariances, expected features, and these multiplied with those."""
        size = state.features.shape[-1]
        covariance = state.sums.covariance.total + self.ridge * jnp.eye(size)[None]
        inverse = jax.vmap(lambda matrix: solve(matrix, jnp.eye(size)))(covariance)
        expected = expected_features(state, inverse)
        return inverse, expected, jnp.einsum("hfg,phg->phf", inverse, expected)


def expected_features(
    state: FTPedelState, inverse: Float[Array, "horizon feature feature"]
) -> Float[Array, "policy horizon feature"]:
    """Of every policy at every step, as far as the data tell. `inverse`: of the covariances."""
    first = jnp.broadcast_to(
        state.problem.require_initial("FTPedel"), (len(state.policies), state.problem.states)
    )

    def one(reached, step):
        features, policies, inverse, following = step
        expected = jnp.einsum("ps,psa,saf->pf", reached, policies, features)
        return (expected @ inverse) @ following, expected

    policies = jnp.moveaxis(state.policies, 1, 0)
    each = (state.features, policies, inverse, state.sums.following.total)
    return jnp.moveaxis(jax.lax.scan(one, first, each)[1], 0, 1)
