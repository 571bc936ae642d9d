"""Routing by what a whole task asks for, beside what each token shows (GLIDER)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from headwater.networks.adapters.gated import preferring
from headwater.networks.decoders.decoder import Decoder


class InstructionRouter(eqx.Module):
    r"""Prefers experts whose instruction is like that of the query (arXiv:2410.07172).

    What is added to the scores of all tokens and matrices is $\gamma\cos(q, e_k)$, where $q$ is an
    embedding of the instruction that the query comes with, and $e_k$ one of what expert $k$ was
    trained to do. Who writes instructions and embeds them is the caller's affair.

    **Arguments:** `experts`: $e_k$; `scale`: $\gamma$, at 0 tokens alone decide, and where it is
    large the instruction alone.
    """

    experts: Float[Array, "expert number"]
    scale: float | Float[Array, ""]

    def preference(self, instruction: Float[Array, " number"]) -> Float[Array, " expert"]:
        """What is added to the score of each expert."""
        norms = jnp.linalg.norm(self.experts, axis=-1) * jnp.linalg.norm(instruction)
        # Nothing is like an instruction that says nothing.
        return self.scale * (self.experts @ instruction) / jnp.maximum(norms, 1e-12)

    def instructed(self, decoder: Decoder, instruction: Float[Array, " number"]) -> Decoder:
        """The decoder for all texts with this instruction.

        **Arguments:** `decoder`: made by `routed` (`networks/adapters/gated.py`) of as many
        experts.
        """
        return preferring(decoder, self.preference(instruction))

    def logits(
        self,
        decoder: Decoder,
        tokens: Int[Array, "row position"],
        instructions: Float[Array, "row number"],
    ) -> Float[Array, "row position vocabulary"]:
        """Of texts that have an instruction each. **Arguments:** as of `instructed`."""
        one = lambda tokens, instruction: self.instructed(decoder, instruction).logits(tokens)
        return jax.vmap(one)(tokens, instructions)
