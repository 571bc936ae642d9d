"""Products in bfloat16: the algebra of `@`, and a refusal in a sentence where they cannot be."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.networks.mlp import MLP, Ensemble
from headwater.ops import products


@pytest.fixture
def stand_in(monkeypatch):
    """A kernel in JAX, so that the algebra around the foreign one is tested on every machine."""

    def ffi_call(name, result, *, vmap_method):
        def call(a, b, *, transpose_a, transpose_b):
            assert a.dtype == b.dtype == jnp.bfloat16
            a, b = a.astype(jnp.float32), b.astype(jnp.float32)
            made = (a.T if transpose_a else a) @ (b.T if transpose_b else b)
            assert (made.shape, made.dtype) == (result.shape, result.dtype)
            return made

        return call

    monkeypatch.setattr(jax.ffi, "ffi_call", ffi_call)
    monkeypatch.setattr(products, "_has_matrix_units", lambda: True)
    monkeypatch.setattr(products, "_loaded", True)


def _drawn(*shape, seed=0):
    """Small integers: bfloat16 holds them, and their products and sums, exactly."""
    return jnp.asarray(np.random.default_rng(seed).integers(-2, 3, shape), jnp.float32)


def test_default_is_the_plain_product():
    x, weight = _drawn(5, 64), _drawn(64, 64)
    assert "custom_vjp" not in str(jax.make_jaxpr(products.product)(x, weight))
    np.testing.assert_array_equal(products.product(x, weight), x @ weight)
    # JAX's own setting is another.
    with jax.default_matmul_precision("bfloat16"):
        assert "custom_vjp" not in str(jax.make_jaxpr(products.product)(x, weight))


@pytest.mark.parametrize("transpose_a, transpose_b", [*itertools.product((False, True), repeat=2)])
def test_gradients_of_every_transposition_and_their_gradients(stand_in, transpose_a, transpose_b):
    a = _drawn(*((3, 2) if transpose_a else (2, 3)), seed=1)
    b = _drawn(*((4, 3) if transpose_b else (3, 4)), seed=2)
    weights = _drawn(2, 4, seed=3)

    def ours(a, b):
        return jnp.sum(weights * products._multiply(a, b, transpose_a, transpose_b) ** 2)

    def plain(a, b):
        made = (a.T if transpose_a else a) @ (b.T if transpose_b else b)
        return jnp.sum(weights * made**2)

    def twice(loss):
        def slope(a, b):
            first = jax.grad(loss, argnums=(0, 1))(a, b)
            return sum(jnp.sum(x) for x in first)

        return jax.grad(slope, argnums=(0, 1))(a, b)

    np.testing.assert_array_equal(ours(a, b), plain(a, b))
    for found, known in zip(
        [*jax.grad(ours, argnums=(0, 1))(a, b), *twice(ours)],
        [*jax.grad(plain, argnums=(0, 1))(a, b), *twice(plain)],
    ):
        np.testing.assert_array_equal(found, known)


def test_a_network_within_the_context_uses_it_and_without_does_not(stand_in):
    network = MLP(3, 1, (64, 64), key=jax.random.key(0))
    x = _drawn(2, 5, 3)

    def traced():
        return str(jax.make_jaxpr(lambda x: network(x))(x))

    before = traced()
    with products.multiplying("bfloat16"):
        within = traced()
        rounded = network(x)
    # Of three products only the one between the hidden layers is large enough.
    assert (before.count("custom_vjp_call"), within.count("custom_vjp_call")) == (0, 1)
    assert traced() == before
    np.testing.assert_allclose(rounded, network(x), rtol=0.05, atol=0.01)
    assert not np.array_equal(rounded, network(x))


def test_programs_of_one_precision_do_not_serve_the_other(stand_in):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 64)), jnp.float32)
    multiply = jax.jit(lambda x: products.product(x, x.T @ x))
    exact = multiply(x)
    with products.multiplying("bfloat16"):
        rounded = multiply(x)
        with products.multiplying("default"):
            np.testing.assert_array_equal(multiply(x), exact)
        np.testing.assert_array_equal(multiply(x), rounded)
    assert not np.array_equal(exact, rounded)
    np.testing.assert_array_equal(multiply(x), exact)


def test_single_rows_and_what_does_not_fit_are_left_to_jax(stand_in):
    weight = _drawn(64, 64)
    with products.multiplying("bfloat16"):
        # So acting does, which would copy the weights for every row.
        acting = jax.make_jaxpr(jax.vmap(lambda x: products.product(x, weight)))(_drawn(5, 64))
        assert "custom_vjp" not in str(acting)
        with pytest.raises(TypeError):
            products.product(_drawn(5, 70), weight)


def test_what_cannot_be_is_refused_in_a_sentence(monkeypatch, tmp_path):
    with pytest.raises(SpecificationError, match=r"unknown precision 'bfloat'.*bfloat16"):
        products.check_precision("bfloat")
    monkeypatch.setattr(products, "_has_matrix_units", lambda: False)
    with pytest.raises(SpecificationError, match="no matrix units"):
        products.multiplying("bfloat16")
    monkeypatch.setattr(products, "_has_matrix_units", lambda: True)
    monkeypatch.setattr(products, "_loaded", False)
    monkeypatch.setattr(products.metadata, "files", lambda name: None)
    with pytest.raises(SpecificationError, match=r"headwater\[mkl\]"):
        products.check_precision("bfloat16")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SpecificationError, match=r"C\+\+ compiler"):
        products._compiled()
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    monkeypatch.setenv("CXX", f"'{tmp_path / 'text'}' -m64")
    with pytest.raises(SpecificationError, match=r"text could not: .*Exec format"):
        products._compiled()
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(SpecificationError, match="false could not"):
        products._compiled()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(SpecificationError, match="cannot be written"):
        products._compiled()
    assert list((tmp_path / "headwater" / "products").iterdir()) == []


def test_a_damaged_program_in_the_cache_is_compiled_again(tmp_path, monkeypatch):
    program, compiled = tmp_path / "program.so", []
    program.write_text("damaged")

    def compile_again():
        compiled.append(program.exists())
        program.write_text("damaged as well")
        return program

    monkeypatch.setattr(products, "_compiled", compile_again)
    with pytest.raises(SpecificationError, match=r"program.so, which cannot be loaded: .*XDG"):
        products._open(program)
    assert compiled == [False]


def test_the_kernel_is_mkls_product():
    try:
        products.check_precision("bfloat16")
    except SpecificationError as reason:
        pytest.skip(str(reason))
    with pytest.raises(Exception, match="do not fit"):
        jax.block_until_ready(products._multiply(_drawn(2, 70), _drawn(64, 3), False, False))
    assert not np.any(products._multiply(_drawn(2, 0), _drawn(0, 3), False, False))
    draw = np.random.default_rng(0)
    x, y = (jnp.asarray(draw.normal(size=(70, 64)), jnp.float32) for _ in range(2))

    def build(key):
        # Smooth, since rounding may take a unit of another activation across its edge.
        return MLP(64, 64, (64, 96), key=key, activation="tanh")

    networks = Ensemble(build, 3, key=jax.random.key(0))

    def loss(networks, x):
        return jnp.sum((networks(x) - y[None]) ** 2), networks(x)

    both = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    slopes, exact = both(networks, x)
    with products.multiplying("bfloat16"):
        program = both.lower(networks, x).as_text()
        rounded_slopes, rounded = both(networks, x)
    assert "headwater_multiply" in program
    assert 0 < jnp.max(jnp.abs(rounded - exact)) < 0.02
    for found, known in zip(jax.tree.leaves(rounded_slopes), jax.tree.leaves(slopes)):
        assert jnp.linalg.norm(found - known) < 0.02 * jnp.linalg.norm(known)
    # One product alone: the operands are rounded, and the sum is not.
    a, b = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
    known = np.asarray(a, np.float64) @ np.asarray(b, np.float64).T
    np.testing.assert_allclose(products._multiply(x, y, False, True), known, rtol=1e-5, atol=1e-5)
