"""Policies over the layers of a network: one removes them, and one makes them narrower."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.problems.search_space import SearchSpace

_FACTORS = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_FEATURES = 3


class Layers(NamedTuple):
    """What is known of the layers of a network.

    **Arguments:** `features`: what policies read: whether a layer has to stay, and its width, alone
    and beside the widest; `fixed`: whether it has to stay; `full`: its width; `shrunken`: its width
    times each factor.
    """

    features: Float[Array, "layer feature"]
    fixed: Bool[Array, " layer"]
    full: Float[Array, " layer"]
    shrunken: Float[Array, "layer factor"]

    @classmethod
    def of(cls, space: SearchSpace) -> "Layers":
        """The layers whose widths `space` bounds; those that may be 0 can be removed."""
        low, high = np.asarray(space.low), np.asarray(space.high)
        features = np.stack([low > 0.0, np.log2(1.0 + high) / 10.0, high / high.max()], axis=1)
        shrunken = np.round(high[:, None] * np.asarray(_FACTORS)[None, :])
        shrunken = np.maximum(shrunken, np.maximum(low, 1.0)[:, None])
        return cls(
            jnp.asarray(features, jnp.float32),
            jnp.asarray(low > 0.0),
            jnp.asarray(high, jnp.float32),
            jnp.asarray(shrunken, jnp.float32),
        )


class Remover(eqx.Module):
    """Reads all layers in both directions, twice, and says which to keep."""

    first: tuple[eqx.nn.LSTMCell, eqx.nn.LSTMCell]
    second: tuple[eqx.nn.LSTMCell, eqx.nn.LSTMCell]
    head: eqx.nn.Linear

    def __init__(self, size: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 5)
        inputs = (_FEATURES, _FEATURES, 2 * size, 2 * size)
        cells = [eqx.nn.LSTMCell(n, size, key=k) for n, k in zip(inputs, keys)]
        self.first, self.second = (cells[0], cells[1]), (cells[2], cells[3])
        self.head = eqx.nn.Linear(2 * size, 1, key=keys[4])

    def draw(self, layers: Layers, *, key: PRNGKeyArray) -> Float[Array, " layer"]:
        """Widths: those of the layers that are kept, and 0 for the others."""
        kept = layers.fixed | jax.random.bernoulli(key, jax.nn.sigmoid(self._logits(layers)))
        return jnp.where(kept, layers.full, 0.0)

    def log_probability(
        self, layers: Layers, widths: Float[Array, " layer"]
    ) -> tuple[Float[Array, ""], Bool[Array, ""]]:
        """With which layers are removed so, and whether they can be."""
        logits, kept = self._logits(layers), widths > 0.0
        each = jnp.where(kept, jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits))
        possible = jnp.all(jnp.where(kept, widths == layers.full, ~layers.fixed))
        return jnp.sum(jnp.where(layers.fixed, 0.0, each)), possible

    def _logits(self, layers: Layers) -> Float[Array, " layer"]:
        return jax.vmap(self.head)(_both(self.second, _both(self.first, layers.features)))[:, 0]


class Shrinker(eqx.Module):
    """Reads layer after layer, and what became of the one before, and chooses a factor."""

    cells: tuple[eqx.nn.LSTMCell, eqx.nn.LSTMCell]
    head: eqx.nn.Linear

    def __init__(self, size: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        first = eqx.nn.LSTMCell(_FEATURES + 1, size, key=keys[0])
        self.cells = (first, eqx.nn.LSTMCell(size, size, key=keys[1]))
        self.head = eqx.nn.Linear(size, len(_FACTORS), key=keys[2])

    def draw(
        self, layers: Layers, kept: Bool[Array, " layer"], *, key: PRNGKeyArray
    ) -> Float[Array, " layer"]:
        """Widths of the layers that are kept; 0 for the others."""

        def choose(logits, layer):
            chosen = jax.random.categorical(jax.random.fold_in(key, layer), logits)
            width = layers.shrunken[layer, chosen]
            return width, width

        return jnp.where(kept, self._through(layers, kept, choose), 0.0)

    def log_probability(
        self, layers: Layers, kept: Bool[Array, " layer"], widths: Float[Array, " layer"]
    ) -> tuple[Float[Array, ""], Bool[Array, ""]]:
        """Of these widths, and whether factors lead to them."""

        def choose(logits, layer):
            # Several factors may lead to one width of a narrow layer.
            same = layers.shrunken[layer] == widths[layer]
            some, chance = jnp.any(same), jax.nn.log_softmax(logits)
            found = jax.nn.logsumexp(jnp.where(same | ~some, chance, -jnp.inf))
            return widths[layer], (found, some)

        found, possible = self._through(layers, kept, choose)
        possible = jnp.where(kept, possible, widths == 0.0)
        return jnp.sum(jnp.where(kept, found, 0.0)), jnp.all(possible)

    def _through(
        self, layers: Layers, kept: Bool[Array, " layer"], choose: Callable[..., Any]
    ) -> Any:
        """Goes through the layers that are kept, and stacks what `choose` returns second.

        **Arguments:** `choose`: from the logits of a layer and its index to its width, which the
        next decision reads, and to what is wanted.
        """
        none = (jnp.zeros(self.head.in_features), jnp.zeros(self.head.in_features))

        def read(carry, layer):
            states, earlier = carry
            given = jnp.concatenate([layers.features[layer], earlier[None]])
            after = []
            for cell, state in zip(self.cells, states):
                after.append(cell(given, state))
                given = after[-1][0]
            width, found = choose(self.head(given), layer)
            went_on = (tuple(after), width / layers.full[layer])
            return jax.tree.map(lambda a, b: jnp.where(kept[layer], a, b), went_on, carry), found

        first = ((none, none), jnp.ones(()))
        return jax.lax.scan(read, first, jnp.arange(len(layers.full), dtype=jnp.int32))[1]


def _both(
    cells: tuple[eqx.nn.LSTMCell, eqx.nn.LSTMCell], rows: Float[Array, "layer any"]
) -> Float[Array, "layer both"]:
    """What two cells say of each row, one coming from the front and one from behind."""

    def read(cell, reverse):
        def step(state, row):
            state = cell(row, state)
            return state, state[0]

        start = (jnp.zeros(cell.hidden_size), jnp.zeros(cell.hidden_size))
        return jax.lax.scan(step, start, rows, reverse=reverse)[1]

    return jnp.concatenate([read(cells[0], False), read(cells[1], True)], axis=1)
