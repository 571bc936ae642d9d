"""A policy that judges its own responses moves probability to its likeliest one."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import Agent
from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_process import every_response
from headwater.evaluation.exact_tokens import log_policy
from headwater.evidence.claim import Claim, Criterion, Finding, exactly, mean_of
from headwater.methods.language.rewards.sharpening import RLHFSharpening
from headwater.methods.language.texts.sft import SFT
from headwater.networks.token_table import LogLinearResponses, PrefixTable
from headwater.ops.language.generation import generate
from headwater.runs.learn import learn
from headwater.sources.language.completion_pairs import BestOfN
from headwater.sources.language.completions import SampledCompletions

_PAPER = "huang2025self"
_ROWS = 16


def _base(responses: int, key):
    """A policy whose likeliest response, number zero, has twice the uniform probability."""
    others = jax.random.dirichlet(key, jnp.full(responses - 1, 20.0)) * (1.0 - 2.0 / responses)
    probabilities = jnp.concatenate([jnp.asarray([2.0 / responses]), others])
    # None of the others may be likelier.
    probabilities = probabilities.at[1:].set(jnp.minimum(probabilities[1:], 1.9 / responses))
    probabilities = probabilities.at[1:].multiply(
        (1.0 - probabilities[0]) / jnp.sum(probabilities[1:])
    )
    return LogLinearResponses(jnp.eye(responses), jnp.log(probabilities))


def _best_of_n(responses: int, samples: int, draws: int, key):
    """How often the best of `samples` is the likeliest response."""
    base_key, key = jax.random.split(key)
    base = _base(responses, base_key)
    written = SampledCompletions(
        every_response(responses, 1).prompts, None, base, rows=_ROWS, samples=samples, new_tokens=1
    )
    source = BestOfN(written)
    method = SFT()
    agent = Agent(method, method.init(TokenProblem(base), key=key))

    def one(key):
        return jnp.mean(source.draw(source.init(key=key), agent, key=key)[1].tokens[:, 1] == 0)

    return jnp.mean(jax.lax.map(one, jax.random.split(key, draws)))


def _masses(seed: int, sizes: tuple[int, ...], draws: int, updates: int) -> Finding:
    keys = jax.random.split(jax.random.key(seed), 4)
    criteria, numbers = [], {}
    for size in sizes:
        for samples in (size // 2, 2 * size):
            predicted = 1.0 - (1.0 - 2.0 / size) ** samples
            found = float(jax.jit(partial(_best_of_n, size, samples, draws))(keys[0]))
            name = f"best of {samples}, {size} responses"
            numbers[name] = {"mass on the likeliest": found, "predicted": predicted}
            criteria.append(
                Criterion(f"{name}: error", exactly(abs(found - predicted)), at_most=0.03)
            )
    size = sizes[0]
    base, responses = _base(size, keys[1]), every_response(size, 1)
    task, before = TokenProblem(base), log_policy(base, responses)
    written = SampledCompletions(
        responses.prompts, None, base, rows=128, samples=size // 2, new_tokens=1
    )
    clone = SFT(learning_rate=0.1, decay_updates=float(updates))
    after = jax.jit(
        lambda: log_policy(
            learn(clone, task, BestOfN(written), updates, key=keys[2]).state.network, responses
        )
    )()
    predicted = 1.0 - (1.0 - 2.0 / size) ** (size // 2)
    error = abs(float(jnp.exp(after[0, 0])) - predicted)
    criteria.append(Criterion("fine-tuned on the best: error", exactly(error), at_most=0.03))
    sharpen = RLHFSharpening(beta=1.0, learning_rate=0.05, decay_updates=float(updates))
    after = jax.jit(
        lambda: log_policy(
            learn(sharpen, task, written, updates, key=keys[3]).state.network, responses
        )
    )()
    best = jax.nn.log_softmax(2.0 * before, axis=-1)
    distance = 0.5 * float(jnp.sum(jnp.abs(jnp.exp(after) - jnp.exp(best))))
    criteria.append(
        Criterion("regression: total variation from base²", exactly(distance), at_most=0.02)
    )
    numbers["total variation from base² before"] = 0.5 * float(
        jnp.sum(jnp.abs(jnp.exp(before) - jnp.exp(best)))
    )
    return Finding(tuple(criteria), numbers)


def _greedy(seed: int, instances: int) -> Finding:
    """Texts of two tokens: the likeliest begins with token 0, whose whole mass it has."""
    responses = every_response(3, 2)
    keys = jax.random.split(jax.random.key(seed), instances)

    def one(mass, key):
        first = jnp.log(jnp.asarray([mass, 1.0 - mass, 1e-9]))
        # After 0 one token is certain; after 1 two are equally likely.
        later = jnp.log(jnp.asarray([[1.0, 1e-9, 1e-9], [1e-9, 0.5, 0.5], [1.0, 1.0, 1.0]]))
        table = PrefixTable(3, 3)
        values = table.table.at[0].set(first).at[jnp.arange(3) + 3].set(later)
        base = eqx.tree_at(lambda t: t.table, table, values)

        def succeeds(network):
            text = generate(network, responses.prompts, 2, key=key, greedy=True).tokens[0, 1:]
            return jnp.all(text == 0).astype(jnp.float32)

        written = SampledCompletions(
            responses.prompts, None, base, rows=64, samples=4, new_tokens=2
        )
        clone = SFT(learning_rate=0.1)
        state = learn(clone, TokenProblem(base), BestOfN(written), 60, key=key).state
        return succeeds(base), succeeds(state.network)

    each = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    (low, high), (sharpened, _) = (
        np.asarray(x) for x in jax.jit(each)(jnp.asarray([0.49, 0.51]), keys)
    )
    return Finding(
        (
            Criterion("greedy decoding finds a mode of mass 0.49", mean_of(low), at_most=0.0),
            Criterion("greedy decoding finds a mode of mass 0.51", mean_of(high), at_least=1.0),
            Criterion("and that of 0.49 after sharpening", mean_of(sharpened), at_least=1.0),
        )
    )


CLAIMS = (
    Claim(
        name="sharpening-reaches-the-predicted-mass",
        statement=(
            "The best of N of a policy's own responses is its likeliest one, of probability 1/C, "
            "with probability 1 - (1 - 1/C)^N, within 0.03: 0.63 for N = C and 0.98 for N = 4C; "
            "fine-tuning on them reaches the same mass, and regression on the policy's own "
            "log-probabilities reaches the squared policy at β = 1 within 0.02 in total variation."
        ),
        methods=("RLHFSharpening", "SFT"),
        paper=_PAPER,
        where="its definitions of both methods, and the coverage coefficient of its theorem",
        scales={
            "smoke": {"sizes": (32,), "draws": 150, "updates": 150},
            "small": {"sizes": (32, 128, 512), "draws": 300, "updates": 1000},
        },
        experiment=_masses,
    ),
    Claim(
        name="greedy-decoding-needs-half-the-mass",
        statement=(
            "Greedy decoding finds the likeliest text if it has more than half the mass, and can "
            "miss it with 0.49; after sharpening by the best of four it finds that one, too."
        ),
        methods=("SFT",),
        paper=_PAPER,
        where="its remark that sharpened policies are decoded greedily, and that half is tight",
        scales={"smoke": {"instances": 4}, "small": {"instances": 32}},
        experiment=_greedy,
    ),
)
