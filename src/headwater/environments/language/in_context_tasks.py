"""Texts that hold the examples from which they can be answered."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import position_mask
from headwater.environments.language.token_tasks import AbstractTextTask

_SIDE = 4


class LabelledPoints(AbstractTextTask):
    """Points with the labels of a line that is drawn for each text: `B=+;E=-;K=+;DA>+-.`.

    A point is a letter, its place in a square of four by four, row by row. A line divides
    the points with label + from those with label -; it is drawn anew for each text, its direction
    and its distance from the middle uniformly, so that only the labelled points tell it.

    **Arguments:** `count`: of the labelled points; `asked`: points behind them whose labels are the
    response; `repeated`: each labelled point is followed by those that are asked about, which do
    not stand at the end then: `B=+DA;E=-DA;K=+DA;>+-.`.
    """

    alphabet: ClassVar[str] = "ABCDEFGHIJKLMNOP" + "+-=;>."
    count: int = eqx.field(static=True, default=64)
    asked: int = eqx.field(static=True, default=1)
    repeated: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.count < 1 or self.asked < 1:
            raise SpecificationError(
                f"{self.count} labelled points and {self.asked} without a label: a text needs at "
                "least one of each"
            )

    @property
    def separator(self) -> int:
        """The token that ends each labelled point."""
        return self.alphabet.index(";")

    @property
    def answer(self) -> int:
        """The token after which the answer is."""
        return self.alphabet.index(">")

    @property
    def demonstration_tokens(self) -> int:
        """Tokens of each labelled point, its separator included."""
        return 4 + (self.asked if self.repeated else 0)

    def texts(self, rows: int, *, key: PRNGKeyArray) -> Completions:
        line_key, key = jax.random.split(key)
        count = self.count + self.asked
        point = jax.random.randint(key, (rows, count), 0, _SIDE**2, jnp.int32)
        middle = (_SIDE - 1) / 2
        direction, distance = jax.random.uniform(line_key, (2, rows, 1), minval=-1.0)
        angle = jnp.broadcast_to(jnp.pi * direction, point.shape)
        along = jnp.cos(angle) * (point % _SIDE - middle)
        along = along + jnp.sin(angle) * (point // _SIDE - middle)
        below = along < jnp.broadcast_to(middle * distance, point.shape)
        label = self.alphabet.index("+") + below.astype(jnp.int32)

        def sign(character: str, columns: int):
            return jnp.full((rows, columns), self.alphabet.index(character), jnp.int32)

        shown, asked = point[:, : self.count], point[:, self.count :]
        pieces = [shown, sign("=", self.count), label[:, : self.count]]
        shown = jnp.stack(pieces, axis=-1)
        if self.repeated:
            copies = jnp.broadcast_to(asked[:, None], (rows, self.count, self.asked))
            shown = jnp.concatenate([shown, copies], axis=-1)
        shown = jnp.concatenate([shown, sign(";", self.count)[..., None]], axis=-1)
        query = [] if self.repeated else [asked]
        response = [label[:, self.count :], sign(".", 1)]
        tokens = [shown.reshape(rows, -1), *query, sign(">", 1), *response]
        tokens = jnp.concatenate(tokens, axis=1)
        width = tokens.shape[1]
        start = jnp.full((rows,), width - self.asked - 1)
        return Completions(tokens, position_mask(start, jnp.full((rows,), width), width))
