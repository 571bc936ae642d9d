"""Linear algebra of a batch: its values, and that it ends where there are few threads."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.ops import linear_algebra as ours

_AS_A_USER_RUNS_IT = """
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import jax
import jax.numpy as jnp
from headwater.networks.mlp import MLP, Ensemble
from headwater.ops.linear_algebra import cholesky

def matrices(key):
    build = lambda key: MLP(17, 6, (256,) * 4, initialiser="orthogonal", key=key)
    networks = [Ensemble(build, 2, key=k).stacked for k in jax.random.split(key)]
    draws = jax.random.normal(key, (8, 16, 64, 64))
    grams = draws @ draws.mT + jnp.eye(64)
    return [jnp.sum(w) for n in networks for w in n.weights], [
        jnp.sum(jax.vmap(cholesky)(gram)) for gram in grams
    ]

program = jax.jit(matrices)
for seed in range(10):
    jax.block_until_ready(program(jax.random.key(seed)))
"""


@pytest.fixture
def batch():
    draws = np.random.default_rng(0).standard_normal((3, 2, 5, 5)).astype(np.float32)
    return jnp.asarray(draws @ draws.swapaxes(-1, -2) + np.eye(5, dtype=np.float32))


def _twice(function):
    return jax.jit(jax.vmap(jax.vmap(function)))


def test_every_solution_of_a_batch_solves_its_own_system(batch):
    right = jax.random.normal(jax.random.key(0), batch.shape[:-1])
    root = _twice(ours.cholesky)(batch)
    np.testing.assert_allclose(root @ root.mT, batch, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(root, jnp.tril(root))
    product = jax.vmap(jax.vmap(jnp.matmul))
    for system, found in (
        (batch, _twice(ours.solve)(batch, right)),
        (batch, _twice(ours.cholesky_solve)(root, right)),
        (root, _twice(ours.triangular_solve)(root, right)),
        (root.mT, _twice(lambda r, x: ours.triangular_solve(r, x, transposed=True))(root, right)),
    ):
        np.testing.assert_allclose(product(system, found), right, rtol=1e-3, atol=1e-3)


def test_singular_vectors_of_a_batch_are_orthogonal_and_make_up_each_matrix(batch):
    wide = batch[..., :3, :]
    left, value, right = _twice(ours.singular_decomposition)(wide)
    assert left.shape[-2:] == (3, 3) and right.shape[-2:] == (3, 5)
    np.testing.assert_allclose((left * value[..., None, :]) @ right, wide, rtol=1e-4, atol=1e-4)
    for rows in (left.mT, right):
        np.testing.assert_allclose(
            rows @ rows.mT, np.broadcast_to(np.eye(3), left.shape), atol=1e-5
        )
    assert np.all(np.diff(value) <= 0.0) and np.all(value >= 0.0)


def test_eigenvectors_of_a_batch_belong_to_their_eigenvalues(batch):
    values, vectors = _twice(ours.symmetric_eigen)(batch)
    assert bool(jnp.all(jnp.diff(values) >= 0))
    np.testing.assert_allclose(batch @ vectors, vectors * values[..., None, :], atol=1e-4)


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5)])
def test_random_matrices_are_orthogonal_and_those_of_jax(shape):
    keys = jax.random.split(jax.random.key(1), 3)
    drawn = jax.vmap(lambda key: ours.random_orthogonal(key, shape, scale=2.0))(keys)
    short = drawn if shape[0] <= shape[1] else drawn.mT
    identity = jnp.broadcast_to(4.0 * jnp.eye(min(shape)), (3, min(shape), min(shape)))
    np.testing.assert_allclose(short @ short.mT, identity, atol=1e-5)
    alone = jax.nn.initializers.orthogonal(2.0)(keys[2], shape)
    np.testing.assert_allclose(drawn[2], alone, atol=1e-6)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads are limited on Linux")
def test_batches_at_once_on_two_threads_do_not_wait_for_each_other():
    environment = {name: x for name, x in os.environ.items() if name != "XLA_FLAGS"}
    script = [sys.executable, "-c", _AS_A_USER_RUNS_IT]
    done = subprocess.run(script, env=environment, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
