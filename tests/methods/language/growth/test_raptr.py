"""RaPTr against a decoder in NumPy, and against fine-tuning."""

import itertools

import equinox as eqx
import jax
import numpy as np
import optax
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.tokens import TokenProblem
from headwater.methods.language.growth.raptr import RaPTr
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder

from ..text_twin import CONTEXT, VOCABULARY, some_texts

LAYERS, DEPTH, WIDTH = 5, 3, 4
DATA = some_texts(6)
PATHS = [(0, *between, LAYERS - 1) for between in itertools.combinations((1, 2, 3), DEPTH - 2)]
"""All that may be drawn: the ends, and others between them in their order."""


def problem() -> TokenProblem:
    architecture = Architecture(VOCABULARY, CONTEXT, WIDTH, LAYERS, heads=1, hidden=4)
    # Weights that are large enough for every layer to matter.
    return TokenProblem(Decoder(architecture, key=jax.random.key(0), deviation=0.7))


def arrays(tree) -> list[np.ndarray]:
    """The arrays of a decoder, or of moments of one, in double precision."""
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]


def normed(x, scale):
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-5) * scale


def turned(x):
    """Rotary positions: pairs of the two halves, the second a hundred times slower."""
    angle = np.arange(x.shape[1])[:, None] * 10_000.0 ** (-np.arange(0, WIDTH, 2) / WIDTH)
    first, second = x[..., : WIDTH // 2], x[..., WIDTH // 2 :]
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)


def loss_along(parameters, path, scale) -> float:
    """Minus the mean log-probability of the responses' tokens, by the layers of `path` alone."""
    embedding, *blocks, final, unembedding = parameters
    tokens, response = np.asarray(DATA.tokens), np.asarray(DATA.response)
    x = embedding[tokens[:, :-1]]
    hidden = np.tril(np.ones((CONTEXT - 1, CONTEXT - 1))) == 0
    for layer in path:
        norm, query, key, value, output, second, gate, up, down = (b[layer] for b in blocks)
        y = normed(x, norm)
        scores = turned(y @ query) @ np.swapaxes(turned(y @ key), -1, -2) / np.sqrt(WIDTH)
        scores = np.exp(np.where(hidden, -np.inf, scores))
        x = x + scale * ((scores / scores.sum(-1, keepdims=True)) @ (y @ value) @ output)
        y = normed(x, second)
        gated = (y @ gate) / (1 + np.exp(-y @ gate))
        x = x + scale * ((gated * (y @ up)) @ down)
    logits = normed(x, final) @ unembedding.T
    logits = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0]
    return -np.sum(chosen * response[:, 1:]) / response.sum()


def slopes(parameters, path, scale) -> list[np.ndarray]:
    """By central differences, for every number of the decoder."""
    found = [np.zeros_like(p) for p in parameters]
    for parameter, slope in zip(parameters, found):
        for place in np.ndindex(parameter.shape):
            sides = []
            for step in (1e-5, -2e-5):
                parameter[place] += step
                sides.append(loss_along(parameters, path, scale))
            parameter[place] += 1e-5
            slope[place] = (sides[0] - sides[1]) / 2e-5
    return found


def updated(method, state, key):
    return eqx.filter_jit(lambda m, s, k: m.update(s, DATA, key=k))(method, state, key)


def left_out(gradients) -> set[int]:
    """The layers that have no gradient at all."""
    blocks = gradients[1:-2]
    return {i for i in range(LAYERS) if not any(np.any(block[i]) for block in blocks)}


@pytest.mark.parity
@pytest.mark.parametrize("power", [0.0, 0.5])
def test_an_update_is_that_of_the_layers_which_were_drawn(power):
    method = RaPTr(
        path_length=DEPTH,
        scale_power=power,
        learning_rate=0.01,
        warmup_updates=4.0,
        weight_decay=0.1,
    )
    scale = (LAYERS / DEPTH) ** power
    task = problem()
    first = method.init(task, key=jax.random.key(0))
    before = arrays(task.network)
    losses = {path: loss_along(before, path, scale) for path in PATHS}
    assert min(abs(a - b) for a, b in itertools.combinations(losses.values(), 2)) > 1e-3
    for seed in (0, 1):
        state, metrics = updated(method, first, jax.random.key(seed))
        path = min(PATHS, key=lambda p: abs(losses[p] - float(metrics["loss"])))
        assert float(metrics["loss"]) == pytest.approx(losses[path], rel=1e-5)
        assert float(metrics["tokens"]) == np.asarray(DATA.response).sum()
        gradients = slopes(before, path, scale)
        size = np.sqrt(sum(np.sum(g**2) for g in gradients))
        assert float(metrics["gradient_norm"]) == pytest.approx(size, rel=1e-4)
        kept = arrays(optax.tree.get(state.optimiser, "mu"))
        assert left_out(kept) == set(range(LAYERS)) - set(path)
        # AdamW's first step of the shortened gradient, at a quarter of the rate.
        shortened = [g / max(size, 1.0) for g in gradients]
        for ours, theirs in zip(kept, shortened):
            np.testing.assert_allclose(10 * ours, theirs, rtol=1e-3, atol=2e-6)
        for now, old, slope in zip(arrays(state.network), before, kept):
            step = 10 * slope / (np.abs(10 * slope) + 1e-8) + 0.1 * old
            np.testing.assert_allclose(now, old - 0.01 / 4 * step, atol=2e-6)


@pytest.mark.oracle
def test_every_path_is_as_likely_as_the_others():
    method = RaPTr(path_length=DEPTH)
    state = method.init(problem(), key=jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 300)
    losses = jax.jit(jax.vmap(lambda key: method.update(state, DATA, key=key)[1]["loss"]))(keys)
    _, often = np.unique(np.round(np.asarray(losses), 4), return_counts=True)
    # The standard deviation of each count is 8.
    assert len(often) == len(PATHS) and np.all(np.abs(often - 100) < 30), often


@pytest.mark.equivalence("SFT")
@pytest.mark.parametrize("depth", [LAYERS, LAYERS + 2])
def test_the_whole_path_is_fine_tuning(depth):
    task = problem()
    fields = {"learning_rate": 0.01, "warmup_updates": 2.0, "weight_decay": 0.1}
    method, plain = RaPTr(path_length=depth, scale_power=0.5, **fields), SFT(**fields)
    one, other = (m.init(task, key=jax.random.key(0)) for m in (method, plain))
    for i in range(3):
        one, found = updated(method, one, jax.random.key(i))
        other, expected = updated(plain, other, jax.random.key(i))
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, err_msg=name)
    for ours, theirs in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    part, _ = updated(
        RaPTr(path_length=DEPTH, **fields),
        method.init(task, key=jax.random.key(0)),
        jax.random.key(0),
    )
    assert any(np.any(a != b) for a, b in zip(arrays(part.network), arrays(one.network)))


def test_a_path_without_its_ends_is_refused():
    with pytest.raises(
        SpecificationError, match="path_length = 1: a sub-network has at least the first"
    ):
        RaPTr(path_length=1)
