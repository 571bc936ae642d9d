"""Rounds drawn once, which a method and its float64 twin in NumPy both learn from."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls


def rounds(problem: Arms, count: int, *, seed: int = 0) -> Pulls:
    """Uniformly random pulls whose rewards depend on context, features and arm, in [0, 1]."""
    draw = np.random.default_rng(seed)
    context = draw.normal(size=(count, problem.context_size))
    features = draw.normal(size=(count, problem.arms, problem.feature_size))
    arm = draw.integers(problem.arms, size=count)
    level = 0.2 * arm + context.sum(1) + features[np.arange(count), arm].sum(1)
    reward = 1.0 / (1.0 + np.exp(-level - draw.normal(size=count)))
    return Pulls(
        jnp.asarray(context, jnp.float32),
        jnp.asarray(features, jnp.float32),
        jnp.asarray(arm, jnp.int32),
        jnp.asarray(reward, jnp.float32),
        jnp.asarray(draw.uniform(0.05, 1.0, count), jnp.float32),
    )


def probabilities(method, problem: Arms, data: Pulls, *, explore: bool = True) -> np.ndarray:
    """What the method would have pulled in each round, `[round, arm]`, learning round by round."""
    key = jax.random.key(3)

    @jax.jit
    def follow(data):
        def one(state, given):
            i, row = given
            found = method.probabilities(
                state,
                row.context,
                row.features,
                key=jax.random.fold_in(key, i),
                explore=explore,
            )
            batch = jax.tree.map(lambda x: x[None], row)
            return method.update(state, batch, key=key)[0], found

        start = method.init(problem, key=key)
        return jax.lax.scan(one, start, (jnp.arange(data.arm.shape[0]), data))[1]

    return np.asarray(follow(data), np.float64)


def rows(data: Pulls):
    """Context, features, arm, reward and propensity of each round, in float64."""
    columns = (data.context, data.features, data.arm, data.reward, data.propensity)
    arrays = [np.asarray(x) for x in columns]
    for row in zip(*arrays):
        yield (
            row[0].astype(np.float64),
            row[1].astype(np.float64),
            int(row[2]),
            float(row[3]),
            float(row[4]),
        )


def ridge_twin(problem: Arms, data: Pulls, ridge: float):
    """Mean and variance of every arm before each round, by solving from scratch each time."""
    groups = 1 if problem.feature_size else problem.arms
    matrices = vectors = None
    for context, features, arm, reward, _ in rows(data):
        inputs = _inputs(problem, context, features)
        if matrices is None or vectors is None:
            size = inputs.shape[1]
            matrices = np.stack([ridge * np.eye(size)] * groups)
            vectors = np.zeros((groups, size))
        mean, variance = np.zeros(problem.arms), np.zeros(problem.arms)
        for a, x in enumerate(inputs):
            g = 0 if groups == 1 else a
            mean[a] = x @ np.linalg.solve(matrices[g], vectors[g])
            variance[a] = x @ np.linalg.solve(matrices[g], x)
        yield mean, variance
        g, x = (0 if groups == 1 else arm), inputs[arm]
        matrices[g] += np.outer(x, x)
        vectors[g] += reward * x


def _inputs(problem: Arms, context, features):
    if not problem.feature_size:
        own = context if problem.context_size else np.ones(1)
        return np.tile(own, (problem.arms, 1))
    with_one = np.concatenate([[1.0], context])
    # The features first, then their products with the context.
    blocks = np.einsum("af,c->afc", features, with_one)
    return np.concatenate([blocks[..., 0], blocks[..., 1:].reshape(problem.arms, -1)], axis=1)


def one_best(values) -> np.ndarray:
    """The distribution over the best arm, none of which tie to float32's resolution."""
    return np.eye(len(values))[int(np.argmax(values))]


LINEAR_PROBLEMS = (Arms(4, 3), Arms(4, 3, 2), Arms(4, 0, 3), Arms(4))
"""With contexts, features, both, neither."""
