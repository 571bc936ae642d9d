"""Several contextual bandits at once, whose rewards share unknown features, or hardly any."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.problems.arms import Arms
from headwater.environments.bandits.bandit import AbstractBandit


def _require_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise SpecificationError(f"{name} = {size}: it must be at least 1")


class SharedFeatureBandit(AbstractBandit):
    r"""Tasks that are linear in the same few unknown features, each with weights of its own.

    Every round is one of a task drawn uniformly, which its context shows as a one-hot vector. An
    arm with features $x$, standard normal and new in every round, has the mean reward
    $\sum_k w_k (|u_k \cdot x| - \sqrt{2 / \pi})$: the $u_k$, orthonormal, are the same in all
    tasks, $w$ is uniform on the sphere. Rewards have normal noise.

    **Arguments:** `tasks`; `arms`; `feature_size`: of $x$; `shared_size`: how many $u$ there are,
    at most `feature_size`; `noise`: standard deviation; `seed`: of the instance.
    """

    name: ClassVar[str] = "shared-feature-bandit"
    reference_returns: ClassVar[None] = None

    tasks: int = eqx.field(static=True, default=20)
    arms: int = eqx.field(static=True, default=10)
    feature_size: int = eqx.field(static=True, default=10)
    shared_size: int = eqx.field(static=True, default=3)
    noise: float = 0.5
    seed: int | Int[Array, ""] = 0

    def __check_init__(self):
        _require_sizes(tasks=self.tasks, shared_size=self.shared_size)
        if self.shared_size > self.feature_size:
            raise SpecificationError(
                f"shared_size = {self.shared_size}: there are no more orthogonal directions than "
                f"features, {self.feature_size}"
            )

    @property
    def problem(self) -> Arms:
        return _unbounded(self.tasks, self.arms, self.feature_size)

    def reset(self) -> tuple[Float[Array, "feature shared"], Float[Array, "task shared"]]:
        direction_key, weight_key = jax.random.split(jax.random.key(self.seed))
        directions = jax.random.orthogonal(direction_key, self.feature_size)[:, : self.shared_size]
        weights = jax.random.normal(weight_key, (self.tasks, self.shared_size))
        return directions, weights / jnp.linalg.norm(weights, axis=1, keepdims=True)

    def show(self, state, *, key: PRNGKeyArray):
        task_key, feature_key = jax.random.split(key)
        return _task(task_key, self.tasks), jax.random.normal(
            feature_key, (self.arms, self.feature_size)
        )

    def mean_reward(self, state, context, features) -> Float[Array, " arm"]:
        directions, weights = state
        return (jnp.abs(features @ directions) - jnp.sqrt(2.0 / jnp.pi)) @ (context @ weights)

    def reward(self, mean: Float[Array, "*some"], *, key: PRNGKeyArray) -> Float[Array, "*some"]:
        return mean + self.noise * jax.random.normal(key, mean.shape)


class ClusterBandit(AbstractBandit):
    """Tasks that share clusters of arms and nothing else: each gives every cluster its own worth.

    An arm is of a cluster drawn uniformly in every round. Its features are the centre of that plus
    noise, and it counts to the centre that is nearest. What a cluster earns is uniform in [0, 1],
    for each task anew. One task needs one function of the features to be learned, all of them
    together an indicator of each cluster.

    **Arguments:** `tasks`; `arms`; `feature_size`; `clusters`; `spread`: of the features around
    their centre; `noise`: of rewards, both standard deviations; `seed`: of the instance.
    """

    name: ClassVar[str] = "cluster-bandit"
    reference_returns: ClassVar[None] = None

    tasks: int = eqx.field(static=True, default=20)
    arms: int = eqx.field(static=True, default=10)
    feature_size: int = eqx.field(static=True, default=32)
    clusters: int = eqx.field(static=True, default=20)
    spread: float = 1.0
    noise: float = 0.5
    seed: int | Int[Array, ""] = 0

    def __check_init__(self):
        _require_sizes(tasks=self.tasks, clusters=self.clusters, feature_size=self.feature_size)

    @property
    def problem(self) -> Arms:
        return _unbounded(self.tasks, self.arms, self.feature_size)

    def reset(self) -> tuple[Float[Array, "cluster feature"], Float[Array, "task cluster"]]:
        centre_key, worth_key = jax.random.split(jax.random.key(self.seed))
        centres = jax.random.normal(centre_key, (self.clusters, self.feature_size))
        return centres, jax.random.uniform(worth_key, (self.tasks, self.clusters))

    def show(self, state, *, key: PRNGKeyArray):
        task_key, cluster_key, noise_key = jax.random.split(key, 3)
        cluster = jax.random.randint(cluster_key, (self.arms,), 0, self.clusters)
        around = jax.random.normal(noise_key, (self.arms, self.feature_size))
        return _task(task_key, self.tasks), state[0][cluster] + self.spread * around

    def mean_reward(self, state, context, features) -> Float[Array, " arm"]:
        centres, worth = state
        apart = jnp.sum((features[:, None, :] - centres[None, :, :]) ** 2, axis=-1)
        return (context @ worth)[jnp.argmin(apart, axis=1)]

    def reward(self, mean: Float[Array, "*some"], *, key: PRNGKeyArray) -> Float[Array, "*some"]:
        return mean + self.noise * jax.random.normal(key, mean.shape)


def _task(key: PRNGKeyArray, tasks: int) -> Float[Array, " task"]:
    return jax.nn.one_hot(jax.random.randint(key, (), 0, tasks), tasks, dtype=jnp.float32)


def _unbounded(tasks: int, arms: int, feature_size: int) -> Arms:
    return Arms(arms, tasks, feature_size, low=-float("inf"), high=float("inf"))
