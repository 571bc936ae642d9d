"""Networks that read histories of observations, and models of what follows in their codes."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.problems.history import Frames
from headwater.networks.mlp import MLP


class HistoryEncoder(eqx.Module):
    """A recurrent network (GRU) over the frames of an observation; its last state is the code.

    Frames before the beginning of an episode are passed over.

    **Arguments:** `frames`: how observations are laid out; `width`: of the code; `marked`: whether
    the last number of a frame says that there is one, and otherwise all are read.
    """

    cell: eqx.nn.GRUCell
    frames: Frames = eqx.field(static=True)
    marked: bool = eqx.field(static=True)

    def __init__(self, frames: Frames, width: int, marked: bool, *, key: PRNGKeyArray):
        self.cell = eqx.nn.GRUCell(frames.size, width, key=key)
        self.frames = frames
        self.marked = marked

    def __call__(
        self, observation: Float[Array, "*batch observation"]
    ) -> Float[Array, "*batch code"]:
        batch, width = observation.shape[:-1], self.cell.hidden_size

        def read(code, frame):
            after = self.cell(frame, code)
            return (jnp.where(frame[-1] > 0.5, after, code) if self.marked else after), None

        def one(frames):
            return jax.lax.scan(read, jnp.zeros(width), frames)[0]

        codes = jax.vmap(one)(observation.reshape(-1, *self.frames))
        return codes.reshape(*batch, width)


class Expected(eqx.Module):
    """What is expected of actions: the reward, and a normal distribution of the code that follows.

    **Arguments:** `reward`: `[*batch]`; `mean`, `deviation`: `[*batch, code]`.
    """

    reward: Float[Array, "*batch"]
    mean: Float[Array, "*batch code"]
    deviation: Float[Array, "*batch code"]

    def surprise(self, following: Float[Array, "*batch code"]) -> Float[Array, "*batch"]:
        """Minus the log-density of the code that followed, but for a constant, the mean over its
        numbers."""
        square = ((following - self.mean) / self.deviation) ** 2
        return jnp.mean(0.5 * square + jnp.log(self.deviation), axis=-1)


class CodeModel(eqx.Module):
    """The reward of an action and the code that follows, from the code before."""

    network: MLP
    actions: int = eqx.field(static=True)

    def __init__(
        self, width: int, actions: int, hidden_sizes: tuple[int, ...], *, key: PRNGKeyArray
    ):
        self.network = MLP(width + actions, 1 + 2 * width, hidden_sizes, key=key)
        self.actions = actions

    def __call__(self, code: Float[Array, "*batch code"], action: Int[Array, "*batch"]) -> Expected:
        found = self.network(jnp.concatenate([code, jax.nn.one_hot(action, self.actions)], -1))
        mean, raw = jnp.split(found[..., 1:], 2, axis=-1)
        # A floor on the deviation, without which codes that do not vary have infinite likelihood.
        return Expected(found[..., 0], mean, jax.nn.softplus(raw) + 1e-2)


class HistoryCritic(eqx.Module):
    """Values of discrete actions from the code of a history, and a model of codes beside them."""

    encoder: HistoryEncoder
    head: MLP
    model: CodeModel

    def values(
        self, observation: Float[Array, "*batch observation"]
    ) -> Float[Array, "*batch action"]:
        """The value of every action."""
        return self.head(self.encoder(observation))
