"""What an instruction adds to routing by tokens, for tasks whose tokens look alike."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.decoding.instruction_routing import InstructionRouter
from headwater.environments.language.recall_tasks import AlphabetCiphers
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.evidence.language.experts import each_run
from headwater.evidence.language.routed_experts import (
    KINDS,
    cipher_experts,
    each_expert,
    right_letters,
    texts_by_kind,
    texts_of_two_kinds,
    together,
)
from headwater.networks.adapters.gated import routed

_SCALES = (0.0, 1.0, 10.0, 100.0, 1_000.0)
_CHOSEN = 10.0
"""Of the scales the one that is judged, fixed before anything was run."""
_WORDS, _COMMON, _LENGTH = 6, 12, 8
"""Words of each kind of task, words that instructions of all kinds have, and words in one."""


def _instructions(kind, other, key):
    """Instructions as numbers of words: half about either kind, and as many that say nothing."""

    def one(kind, other, key):
        keys = jax.random.split(key, 3)
        of_kinds = jnp.where(jnp.arange(_LENGTH) % 2 == 0, kind, other)
        about = _WORDS * of_kinds + jax.random.randint(keys[0], (_LENGTH,), 0, _WORDS)
        other_words = KINDS * _WORDS + jax.random.randint(keys[1], (_LENGTH,), 0, _COMMON)
        words = jnp.concatenate([about, other_words])
        return jnp.sum(jax.nn.one_hot(words, KINDS * _WORDS + _COMMON), axis=0)

    return jax.vmap(one)(kind, other, jax.random.split(key, kind.shape[0]))


def _experiment(
    seed: int, runs: int, width: int, copying: int, tuning: int, gating: int, rows: int
) -> Finding:
    def one(key):
        keys = jax.random.split(key, 7)
        task = AlphabetCiphers(key=keys[0], shared=1)
        experts = cipher_experts(task, width, copying, tuning, gating, rows, key=keys[1])
        decoder = routed(each_expert(experts))
        mixed, first, second = texts_of_two_kinds(task, 384, key=keys[3])
        data = together(texts_by_kind(task, 64, key=keys[2]), mixed)
        # What each expert was trained to do, said in many instructions.
        kind = jnp.repeat(jnp.arange(KINDS), 64)
        of_experts = _instructions(kind, kind, keys[4]).reshape(KINDS, 64, -1).mean(axis=1)
        for_held = _instructions(kind, kind, keys[5])
        for_mixed = _instructions(first, second, keys[6])
        shuffled = jax.random.permutation(keys[6], for_held)

        def at(given):
            scale, for_held = given
            instructions = jnp.concatenate([for_held, for_mixed])
            logits = InstructionRouter(of_experts, scale).logits(decoder, data.tokens, instructions)
            right = right_letters(logits, data)
            return jnp.mean(right[: kind.shape[0]]), jnp.mean(right[kind.shape[0] :])

        # At each scale, and at the one that is judged with instructions of other texts.
        scales = jnp.asarray((*_SCALES, _CHOSEN))
        given = jnp.stack([*[for_held] * len(_SCALES), shuffled])
        held, two = jax.lax.map(at, (scales, given))
        return {"held-in": held[:-1], "two kinds": two[:-1], "shuffled": held[-1]}

    found = {name: np.asarray(x, np.float64) for name, x in each_run(one, seed, runs).items()}
    chosen, largest = _SCALES.index(_CHOSEN), len(_SCALES) - 1
    held, two, shuffled = (found[name] for name in ("held-in", "two kinds", "shuffled"))
    criteria = (
        Criterion(
            "accuracy with instructions less that without, on tasks of the experts",
            mean_of(held[:, chosen] - held[:, 0]),
            at_least=0.05,
        ),
        Criterion(
            "accuracy with instructions less that without, on texts of two kinds",
            mean_of(two[:, chosen] - two[:, 0]),
            at_least=-0.03,
        ),
        Criterion(
            "accuracy on texts of two kinds that instructions at a hundred times the scale lose",
            mean_of(two[:, chosen] - two[:, largest]),
            at_least=0.0,
        ),
        Criterion(
            "accuracy with instructions of other texts less that without",
            mean_of(shuffled - held[:, 0]),
            at_most=0.0,
        ),
    )
    numbers = {
        name: dict(zip(map(str, _SCALES), values.mean(axis=0).tolist(), strict=True))
        for name, values in (("held-in", held), ("two kinds", two))
    }
    curves = {name: (list(_SCALES), found[name]) for name in ("held-in", "two kinds")}
    return Finding(
        criteria,
        {
            "share of letters right, by the scale": numbers,
            "with instructions of other texts": float(shuffled.mean()),
        },
        curves,
        "scale of instructions",
        "share of letters right",
    )


CLAIMS = (
    Claim(
        name="instructions-tell-apart-what-tokens-do-not",
        statement=(
            "Where two of five letters of each cipher are shared with others, an instruction "
            "beside the tokens raises the share of right letters by at least 0.05 on tasks that "
            "experts were trained on and costs at most 0.03 on texts that mix two of them; at a "
            "hundred times the scale it costs more there; and instructions of other texts gain "
            "nothing."
        ),
        methods=("PHATGOOSE",),
        paper="li2025glider",
        where="the abstract, on held-in and held-out tasks; the last two are consequences",
        scales={
            "smoke": {"runs": 3, "width": 8, "copying": 0, "tuning": 0, "gating": 0, "rows": 4},
            "small": {
                "runs": 5,
                "width": 32,
                "copying": 600,
                "tuning": 300,
                "gating": 100,
                "rows": 32,
            },
        },
        experiment=_experiment,
    ),
)
