"""What a learned classifier and a formula of readability teach, and what keeps them honest."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.records import Completions
from headwater.core.tokens import AbstractCompletionReward, TokenProblem
from headwater.environments.language.plain_words import PlainWords, Preservation, ShortWords
from headwater.environments.language.token_tasks import prompts_of
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, with_numbers
from headwater.evidence.language.experts import each_run
from headwater.methods.language.comparisons.response_classifier import ResponseClassifier
from headwater.methods.language.rewards.grpo import GRPO
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.ops.language.generation import generate
from headwater.parts.fine_tuning import TuningState
from headwater.runs.learn import learn
from headwater.sources.language.completions import (
    CompletionReplay,
    SampledCompletions,
    WeightedRewards,
)

_PAIRS, _SENTENCES, _TESTED = 100, 2_048, 256
# Of the classifier, of short words, of preservation; and whether the policy saw the pairs.
_ARMS = {
    "classifier and preservation": ((1.0, 0.0, 2.0), True),
    "classifier alone": ((1.0, 0.0, 0.0), True),
    "short words and preservation": ((0.0, 1.0, 2.0), True),
    "short words alone": ((0.0, 1.0, 0.0), True),
    "classifier and preservation, without pairs": ((1.0, 0.0, 2.0), False),
}


class _Classifier(AbstractCompletionReward):
    method: ResponseClassifier
    state: TuningState

    def __call__(self, data: Completions):
        return jax.lax.stop_gradient(self.method.rate(self.state, data))


def _experiment(
    seed: int,
    runs: int,
    width: int,
    reading: int,
    imitating: int,
    classifying: int,
    updates: int,
) -> Finding:
    def learned(method, rate, decay, network, task, data, rows, count, key):
        method = with_numbers(method, learning_rate=rate, decay_updates=float(max(count, 1)))
        problem, source = TokenProblem(network, task.end), CompletionReplay(data, rows)
        if not count:
            return method, method.init(problem, key=key)
        method = with_numbers(method, weight_decay=decay)
        return method, learn(method, problem, source, count, key=key).state

    def one(key):
        keys = jax.random.split(key, 14)
        task = PlainWords(key=keys[0])
        architecture = Architecture(
            task.vocabulary, 2 * task.size + 3, width, 2, 2, hidden=2 * width
        )
        # What a model knows that has read much: to say the same, and which words are synonyms.
        sentences = task.originals(_SENTENCES, key=keys[1])
        said = task.texts(sentences, task.rewritten(sentences, 0.15, 0.15, key=keys[2]))
        fresh = Decoder(architecture, key=keys[3])
        _, state = learned(SFT(), 5e-3, 0.0, fresh, task, said, 64, reading, keys[4])
        base = state.network
        # People have simplified a hundred sentences, each hard word with an even chance.
        few = task.originals(_PAIRS, key=keys[5])
        pairs = task.texts(few, task.rewritten(few, 0.5, key=keys[6]))
        _, state = learned(SFT(), 1e-3, 0.0, base, task, pairs, 16, imitating, keys[7])
        tuned = state.network
        judge = _Classifier(
            *learned(
                ResponseClassifier(), 3e-3, 1.0, base, task, task.labelled(pairs), 32,
                classifying, keys[8],
            )
        )  # fmt: skip
        unlabelled = task.originals(_SENTENCES, key=keys[9])
        prompts = prompts_of(task.texts(unlabelled, unlabelled), task.size + 1)
        tested = task.originals(_TESTED, key=keys[10])
        asked = prompts_of(task.texts(tested, tested), task.size + 1)
        length = task.size + 2

        def measured(network, key):
            written = generate(network, asked, length, key=key, end=task.end)
            return {
                "simplified": jnp.mean(task.simplified(written)),
                "preserved": jnp.mean(task.preserved(written)),
            }

        def arm(given):
            weights, network, key = given
            parts = (judge, ShortWords(task), Preservation(task))
            source = SampledCompletions(
                prompts,
                WeightedRewards(parts, weights),
                rows=8,
                samples=8,
                new_tokens=length,
                end=task.end,
            )
            method = with_numbers(GRPO(), learning_rate=2e-3, decay_updates=float(updates))
            problem = TokenProblem(network, task.end)
            after = learn(method, problem, source, updates, key=key).state
            return measured(after.network, keys[12])

        weights = jnp.asarray([weights for weights, _ in _ARMS.values()])
        begun = [tuned if imitated else base for _, imitated in _ARMS.values()]
        starts = jax.tree.map(
            lambda *x: jnp.stack(x), *(eqx.filter(n, eqx.is_array) for n in begun)
        )
        static = eqx.filter(base, eqx.is_array, inverse=True)

        def each(given):
            weights, network, key = given
            return arm((weights, eqx.combine(network, static), key))

        found = jax.lax.map(each, (weights, starts, jax.random.split(keys[13], len(_ARMS))))
        before = {"untrained": measured(base, keys[12]), "imitation": measured(tuned, keys[12])}
        for number, name in enumerate(_ARMS):
            before[name] = jax.tree.map(lambda x, number=number: x[number], found)
        return before

    found = jax.tree.map(lambda x: np.asarray(x, np.float64), each_run(one, seed, runs))
    both = found["classifier and preservation"]
    without = found["classifier and preservation, without pairs"]["simplified"]
    criteria = (
        Criterion("hard words made plain", mean_of(both["simplified"]), at_least=0.9),
        Criterion("meanings preserved", mean_of(both["preserved"]), at_least=0.9),
        Criterion(
            "meanings preserved for the classifier alone",
            mean_of(found["classifier alone"]["preserved"]),
            at_most=0.5,
        ),
        Criterion(
            "meanings preserved for short words alone",
            mean_of(found["short words alone"]["preserved"]),
            at_most=0.5,
        ),
        Criterion(
            "hard words made plain by unlabelled sentences alone, less by imitation",
            mean_of(without - found["imitation"]["simplified"]),
            at_least=0.2,
        ),
    )
    numbers = {
        what: {name: float(values[what].mean()) for name, values in found.items()}
        for what in ("simplified", "preserved")
    }
    return Finding(criteria, numbers)


CLAIMS = (
    Claim(
        name="a-classifier-with-preservation-simplifies",
        statement=(
            "With the reward of a classifier that learned from 100 sentences and their "
            "simplifications, in which half of the hard words were left, and a reward of what is "
            "preserved, GRPO makes at least 0.9 of the hard words plain and preserves at least 0.9 "
            "of the meanings; with that reward or one of short words alone it preserves at most "
            "0.5; and from sentences alone, without having imitated the pairs, it makes at least "
            "0.2 more plain than imitation does."
        ),
        methods=("ResponseClassifier", "GRPO", "SFT"),
        paper="rahman2024health",
        where=(
            "the abstract: a classifier of original and simplified texts as the reward on texts "
            "that are not labelled; how it is combined is not known here"
        ),
        scales={
            "smoke": {
                "runs": 3,
                "width": 8,
                "reading": 0,
                "imitating": 0,
                "classifying": 0,
                "updates": 2,
            },
            "small": {
                "runs": 3,
                "width": 32,
                "reading": 700,
                "imitating": 50,
                "classifying": 300,
                "updates": 150,
            },
        },
        experiment=_experiment,
        learned=(
            "One run of seed 100, while settings were chosen (1,000 updates of reading, and 200 of "
            "16 prompts at 0.001), found 0.96 made plain and 0.997 preserved; 0.37 preserved with "
            "the classifier alone and 0.05 with short words alone; and without the pairs 0.54 more "
            "made plain than by imitation, as with them. Short words with preservation made 0.81 "
            "plain: of a fifth of the pairs the hard word is the shorter one."
        ),
    ),
)
