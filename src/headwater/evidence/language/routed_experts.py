"""What claims about routing among adapters share: experts for ciphers on one nano decoder."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.records import Completions
from headwater.core.tokens import TokenProblem
from headwater.environments.language.recall_tasks import AlphabetCiphers
from headwater.evidence.claim import with_numbers
from headwater.evidence.language.experts import trained
from headwater.methods.language.experts.phatgoose import PHATGOOSE
from headwater.methods.language.texts.sft import SFT
from headwater.networks.adapters.gated import Gated
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.low_rank_adapters import Adapted, Matrix
from headwater.runs.learn import learn
from headwater.sources.language.fresh_texts import FreshTexts

KINDS = 6
"""Ciphers, and experts."""
_RANK = 4
_MATRICES: tuple[Matrix, ...] = ("output", "up", "down")


def cipher_experts(
    task: AlphabetCiphers,
    width: int,
    copying_updates: int,
    expert_updates: int,
    gate_updates: int,
    rows: int,
    *,
    key: PRNGKeyArray,
) -> Gated:
    """An expert for each cipher, along a first axis, on a decoder that has learned to copy.

    With no updates of experts or gates, nothing that learns is compiled for them.
    """
    base_key, key = jax.random.split(key)
    architecture = Architecture(
        task.vocabulary,
        2 * task.size + 2,
        width,
        2,
        2,
        hidden=2 * width,
        positions="learned",
        feed_forward="gelu",
    )
    copying = eqx.tree_at(lambda t: t.shift, task, jnp.zeros_like(task.shift))
    base = trained(SFT(), architecture, copying, copying_updates, rows, rate=5e-3, key=base_key)
    method = with_numbers(PHATGOOSE(), expert_updates=expert_updates)

    def expert(kind) -> Gated:
        # Adapters and gates of each begin with numbers of their own.
        own = jax.random.fold_in(key, kind)
        # What is copied is chosen by the place; what it is written as, by these matrices.
        adapted = Adapted(base.network, key=own, rank=_RANK, alpha=1.0, matrices=_MATRICES)
        problem = TokenProblem(adapted, task.end)
        source = FreshTexts(eqx.tree_at(lambda t: t.chosen, task, kind[None]), rows)
        updates = expert_updates + gate_updates
        if not updates:
            return method.init(problem, key=own).expert
        return learn(method, problem, source, updates, key=own).state.expert

    return jax.lax.map(expert, jnp.arange(KINDS))


def texts_by_kind(task: AlphabetCiphers, rows: int, *, key: PRNGKeyArray) -> Completions:
    """Texts of each kind `[kind, row, position]`."""

    def of_kind(kind, key):
        return eqx.tree_at(lambda t: t.chosen, task, kind[None]).texts(rows, key=key)

    return jax.vmap(of_kind)(jnp.arange(KINDS), jax.random.split(key, KINDS))


def texts_of_two_kinds(task: AlphabetCiphers, rows: int, *, key: PRNGKeyArray):
    """Texts that mix two kinds, and which two: those that are opposite in the ring of letters."""
    first = jnp.arange(rows) % KINDS
    second = (first + KINDS // 2) % KINDS
    return task.mixed_texts(first, second, key=key), first, second


def right_letters(
    logits: Float[Array, "*batch position vocabulary"], data: Completions
) -> Float[Array, "*batch"]:
    """The share of letters of each response that are likeliest where they stand."""
    tokens, response = jnp.asarray(data.tokens), jnp.asarray(data.response)
    # The last token is the end, which all texts have at the same place.
    told = response[..., 1:-1]
    hit = (jnp.argmax(logits, axis=-1)[..., :-2] == tokens[..., 1:-1]) & told
    return jnp.sum(hit, axis=-1) / jnp.sum(told, axis=-1)


def together(first: Completions, second: Completions) -> Completions:
    """All texts, `[row, position]`: those of the second after those of the first."""
    flat = lambda x: x.reshape(-1, x.shape[-1])
    return jax.tree.map(lambda x, y: jnp.concatenate([flat(x), flat(y)]), first, second)


def each_expert(experts: Gated) -> list[Gated]:
    """The experts, one by one."""
    return [jax.tree.map(lambda x, kind=kind: x[kind], experts) for kind in range(KINDS)]
