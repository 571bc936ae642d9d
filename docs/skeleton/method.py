"""Linear behavioural cloning: the smallest whole method, to copy when you add one."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

# A method imports `core`, `ops`, `networks` and `parts` only: no source, dataset, environment or
# other method. So it can be fed by any source and run by the one loop.
from headwater.core.feed import Feed
from headwater.core.fields import flag, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractPolicy, Info
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.distributions import Normal
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.gradient_steps import begin, descend


class LinearPolicy(eqx.Module):
    """A normal distribution whose mean is linear in the observation."""

    weight: Float[Array, "action observation"]
    bias: Float[Array, " action"]
    log_std: Float[Array, " action"]

    def __call__(self, observation: Float[Array, "*batch observation"]) -> Normal:
        mean = observation @ self.weight.T
        # Broadcasting is written out: silent broadcasting is an error in the tests.
        mean = mean + jnp.broadcast_to(self.bias, mean.shape)
        return Normal(mean, jnp.broadcast_to(self.log_std, mean.shape))


# Everything that changes, as arrays: what is in here is saved, resumed, and vmapped over seeds.
class LinearCloningState(eqx.Module):
    """The policy, optimiser moments and the scale of observations taken from the data."""

    policy: LinearPolicy
    optimiser: optax.OptState
    normaliser: Normaliser
    step: Int[Array, ""]


# `AbstractMethod[what init gets, what update eats, state]`, then one class for each capability.
# The file is found by this line and by its folder; there is no list to add it to.
class LinearCloning(
    AbstractMethod[Spaces, Transitions, LinearCloningState],
    AbstractPolicy[LinearCloningState],
):
    r"""Behavioural cloning with a linear Gaussian policy, by maximum likelihood.

    $L = -E \log N(a; W s + b, \sigma^2) + \lambda \lVert W \rVert^2$. Rewards and next observations
    are never read.

    **Arguments:**

    - `learning_rate`: of Adam.
    - `weight_penalty`: $\lambda$, the strength of the pull of the weights to zero.
    - `smallest_std`: lower bound of $\sigma$, so that one repeated action keeps a finite density.
    - `normalise_observations`: standardise with the data's mean and deviation.

    **Reference:** Pomerleau (1988), ALVINN.

    **Differences from the paper:** a linear policy on vectors where the paper has a network on
    images; the spread is learned too.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "pomerleau1988alvinn",
        summary="linear regression of the logged actions",
        parents=("Behavioural cloning",),
        rewards=False,
    )

    # Hyper-parameters, with the paper's defaults, each with what it may be. Numbers can be swept
    # with `vmap`, so never branch on one in Python. What decides the program (flags, sizes,
    # choices) is static.
    learning_rate: float = non_negative(1e-3)
    weight_penalty: float = non_negative(1e-4)
    smallest_std: float = positive(0.01)
    normalise_observations: bool = flag(True)

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> LinearCloningState:
        # Refuse what the method is not defined for, in words that name what is.
        problem.require_continuous("LinearCloning")
        shape = (problem.action_size, problem.observation_size)
        policy = LinearPolicy(
            weight=0.01 * jax.random.normal(key, shape),
            bias=jnp.zeros(problem.action_size),
            log_std=jnp.zeros(problem.action_size),
        )
        return LinearCloningState(
            policy=policy,
            optimiser=begin(optax.adam(self.learning_rate), policy),
            # Kept in the state, so that no checkpoint or export ever loses it.
            normaliser=Normaliser(problem, self.normalise_observations),
            step=jnp.zeros((), jnp.int32),
        )

    def update(self, state: LinearCloningState, data: Transitions, *, key: PRNGKeyArray):
        observation = state.normaliser(data.observation)

        def loss(policy: LinearPolicy) -> Float[Array, ""]:
            normal = self._bounded(policy(observation))
            penalty = self.weight_penalty * jnp.sum(policy.weight**2)
            return penalty - jnp.mean(normal.log_density(data.action))

        value, gradients = jax.value_and_grad(loss)(state.policy)
        policy, optimiser = descend(
            optax.adam(self.learning_rate), gradients, state.optimiser, state.policy
        )
        # A new state, of the same shapes and types; then scalars for the log.
        state = LinearCloningState(policy, optimiser, state.normaliser, state.step + 1)
        return state, {"policy_loss": value}

    def act(
        self, state: LinearCloningState, observation: Array, *, key: PRNGKeyArray, explore: bool
    ):
        # One observation in, one action in [-1, 1] out (both calls clip it there); environments
        # convert to their own units.
        normal = self._bounded(state.policy(state.normaliser(observation)))
        action = normal.sample(key)[0] if explore else normal.mode()
        # The second answer is what `update` wants remembered beside the action: here, nothing.
        return action, ()

    def _bounded(self, normal: Normal) -> Normal:
        return Normal(normal.mean, jnp.maximum(normal.log_std, jnp.log(self.smallest_std)))
