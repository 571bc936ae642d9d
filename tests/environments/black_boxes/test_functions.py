"""Black boxes against what is known of them: maxima in the literature, and a kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.black_boxes.fidelities import BraninFidelities, Forrester
from headwater.environments.black_boxes.quadratic import QuadraticFunction
from headwater.environments.black_boxes.smooth import SmoothFunction
from headwater.environments.black_boxes.surfaces import Branin, Hartmann

LAST = jnp.asarray(0, jnp.int32)


@pytest.mark.parametrize(
    ("surface", "tops"),
    [
        (Branin(), [(-np.pi, 12.275), (np.pi, 2.275), (9.42478, 2.475)]),
        (Hartmann(), [(0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573)]),
    ],
    ids=["branin", "hartmann"],
)
def test_surfaces_are_highest_where_the_literature_says(surface, tops):
    value = jax.jit(lambda point: surface.mean_value(None, point, LAST))
    for top in tops:
        assert float(value(jnp.asarray(top))) == pytest.approx(float(surface.highest(None)), 1e-4)
    draw = np.random.default_rng(0)
    points = surface.space.from_unit(draw.uniform(size=(2_000, surface.space.size)))
    values = jax.vmap(value)(jnp.asarray(points, jnp.float32))
    assert float(jnp.max(values)) < float(surface.highest(None))


def test_smooth_functions_have_the_covariances_of_their_kernel():
    places = jnp.asarray([[0.2], [0.3], [0.8]])

    def values(seed):
        box = SmoothFunction(length_scale=0.1, seed=seed)
        instance = box.reset()
        return jax.vmap(lambda point: box.mean_value(instance, point, LAST))(places)

    found = np.asarray(jax.jit(jax.vmap(values))(jnp.arange(4_000)), np.float64)
    apart = (np.asarray(places) - np.asarray(places).T) / 0.1
    np.testing.assert_allclose(found.T @ found / 4_000, np.exp(-0.5 * apart**2), atol=0.08)
    assert np.abs(found.mean(0)).max() < 0.07


@pytest.mark.parametrize("components", [1, 3])
def test_the_highest_is_that_of_the_candidates(components):
    box = SmoothFunction(points=30, components=components, seed=2)
    instance, candidates = box.reset(), box.space.candidates
    assert candidates.shape == (30, components)
    values = [float(box.mean_value(instance, point, LAST)) for point in candidates]
    assert float(box.highest(instance)) == pytest.approx(max(values), abs=1e-5)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(SpecificationError, match="points = 1, components = 1: at least 2 points"):
        SmoothFunction(points=1)


def test_cheap_evaluations_are_what_they_are_said_to_be():
    box, alone = Forrester(), Forrester(fidelities=1)
    x = np.linspace(0.0, 1.0, 1_001)
    value = jax.jit(jax.vmap(lambda x, f: box.mean_value(box.reset(), x[None], f), (0, None)))
    exact, cheap = (np.asarray(value(jnp.asarray(x), jnp.asarray(f)), np.float64) for f in (1, 0))
    plain = -((6.0 * x - 2.0) ** 2) * np.sin(12.0 * x - 4.0)
    np.testing.assert_allclose(exact, plain, atol=2e-4)
    np.testing.assert_allclose(cheap, 0.5 * plain - 10.0 * (x - 0.5) + 5.0, atol=2e-4)
    assert float(box.highest(None)) == pytest.approx(plain.max(), abs=1e-3)
    assert alone.space.costs == (1.0,) and box.space.costs == (0.1, 1.0)
    place = jnp.asarray([0.3])
    only = alone.mean_value(alone.reset(), place, LAST)
    assert float(only) == float(box.mean_value(box.reset(), place, jnp.asarray(1)))
    drawn = Forrester(related=False)
    values = jax.vmap(lambda x: drawn.mean_value(drawn.reset(), x[None], LAST))(jnp.asarray(x))
    assert abs(np.corrcoef(np.asarray(values), exact)[0, 1]) < 0.9


def test_the_cheap_branin_differs_by_the_gap_at_most():
    box = BraninFidelities(fidelity_gap=0.5)
    grid = box.space.candidates
    each = jax.vmap(lambda x, f: box.mean_value(None, x, f), (0, None))
    cheap, exact = (np.asarray(each(grid, jnp.asarray(f)), np.float64) for f in (0, 1))
    assert 0.49 < np.abs(cheap - exact).max() <= 0.5 + 1e-5
    assert exact.max() == pytest.approx(float(box.highest(None)), abs=1e-6)
    # Its mean and deviation over the square are said to be 0 and 1.
    assert abs(exact.mean()) < 0.1 and exact.std() == pytest.approx(1.0, abs=0.1)
    plain = jax.vmap(lambda x: Branin().mean_value(None, x, LAST))(grid)
    np.testing.assert_allclose(exact, (54.81 + np.asarray(plain)) / 51.95, atol=1e-4)


def test_quadratic_functions_have_their_spectrum_and_their_noise():
    box = QuadraticFunction((9.0, 2.0), noise=0.5, degrees=5, seed=4)
    hessian, highest = box.reset()
    np.testing.assert_allclose(np.linalg.eigvalsh(hessian), [2.0, 9.0], rtol=1e-5)
    assert np.linalg.norm(highest) <= 0.5
    curve = jax.hessian(lambda point: box.mean_value((hessian, highest), point, LAST))(highest)
    np.testing.assert_allclose(curve, -hessian, rtol=1e-5)
    keys = jax.random.split(jax.random.key(0), 20_000)
    values = jax.vmap(lambda key: box.value(jnp.float32(3.0), key=key))(keys)
    assert float(jnp.mean(values)) == pytest.approx(3.0, abs=0.02)
    assert float(jnp.std(values)) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"spectrum": (1.0, 0.0)}, "all of them more than 0"), ({"degrees": 2}, "with more than 2")],
)
def test_quadratic_functions_that_cannot_be_are_refused(settings, sentence):
    with pytest.raises(SpecificationError, match=sentence):
        QuadraticFunction(**settings)
