"""Supervised fine-tuning by several workers that send few numbers."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.ops.error_feedback import told
from headwater.ops.language.tokens import averaged, token_log_probabilities


class ToldGradients(eqx.Module):
    """A network in training, and what is known of each worker's gradient."""

    network: AbstractTokenNetwork
    known: Float[Array, "worker number"]


class EF21(
    AbstractMethod[TokenProblem, Completions, ToldGradients],
    AbstractTokenPolicy[ToldGradients],
):
    r"""Fine-tuning by several workers that send only the largest changes of their gradients.

    Worker $i$ has its share of each batch and the loss $f_i$ of `SFT` on it. It sends
    $C(\nabla f_i(x) - g_i)$, where $C$ keeps the $K$ largest numbers; both sides add it to $g_i$,
    so that what was not sent is not lost, and $x \leftarrow x - \gamma \frac1n\sum_i g_i$.

    The weighted version EF21-W sends $C(\nabla f_i / (n w_i) - g_i)$ with
    $w_i = L_i / \sum_j L_j$ and adds up $w_i g_i$. With this $C$ it takes the same steps as EF21.
    What it adds is that $\gamma$ may be as large as `safe_step` of `ops/error_feedback.py` says, by
    the arithmetic mean of the smoothness constants $L_i$ and not by their quadratic mean.

    Memory is needed for one gradient of every worker.

    **Arguments:**

    - `learning_rate`: γ, of plain gradient descent.
    - `num_workers`: $n$; the rows of a batch are divided among them in their order.
    - `message_size`: $K$, numbers in each worker's message; all of them: gradient descent.

    **Reference:** Richtárik, Gasanov, Burlachenko (2024), arXiv:2402.10774; EF21: Richtárik,
    Sokolov, Fatkhullin (2021), arXiv:2106.05203.

    **Differences from the paper:** the batch may be drawn anew for each update; workers are
    computed one after the other on this machine, and what they would send is counted
    (`sent_numbers`; each needs its place besides).
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "richtarik2024error",
        summary="workers send the largest changes of their gradients, and remember the rest",
        parents=("SFT",),
    )

    learning_rate: float = non_negative(0.1)
    num_workers: int = integer(4)
    message_size: int = integer(1)

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> ToldGradients:
        network = problem.network
        numbers, _ = ravel_pytree(eqx.filter(network, network.trainable()))
        return ToldGradients(network, jnp.zeros((self.num_workers, numbers.shape[0])))

    def update(self, state: ToldGradients, data: Completions, *, key: PRNGKeyArray):
        trained, fixed = eqx.partition(state.network, state.network.trainable())
        numbers, restored = ravel_pytree(trained)

        def gradient(part: Completions):
            def loss(numbers):
                network = eqx.combine(restored(numbers), fixed)
                own = token_log_probabilities(network, part)
                return -averaged(own, jnp.asarray(part.response), "token")

            return jax.value_and_grad(loss)(numbers)

        losses, gradients = jax.lax.map(gradient, self._shares(data))
        weights = jnp.full(self.num_workers, 1.0 / self.num_workers)
        known, direction = told(state.known, gradients, weights, self.message_size)
        network = eqx.combine(restored(numbers - self.learning_rate * direction), fixed)
        sent = min(self.message_size, numbers.shape[0]) * self.num_workers
        missing = jnp.mean(gradients, axis=0) - direction
        metrics = {
            "loss": jnp.mean(losses),
            "sent_numbers": jnp.asarray(sent, jnp.float32),
            "gradient_norm": jnp.linalg.norm(jnp.mean(gradients, axis=0)),
            "missing_norm": jnp.linalg.norm(missing),
        }
        return ToldGradients(network, known), metrics

    def network(self, state: ToldGradients) -> AbstractTokenNetwork:
        return state.network

    def _shares(self, data: Completions) -> Completions:
        """The rows of each worker, `[worker, row, position]`."""
        tokens, response = (
            jnp.asarray(x).reshape(-1, x.shape[-1]) for x in (data.tokens, data.response)
        )
        rows = tokens.shape[0]
        if rows % self.num_workers:
            raise SpecificationError(
                f"{rows} texts cannot be divided among {self.num_workers} workers: take a batch "
                "of a multiple of them"
            )
        divided = (self.num_workers, rows // self.num_workers, tokens.shape[-1])
        return Completions(tokens.reshape(divided), response.reshape(divided))
