"""What advantages are worth where responses were only stored, many of them bad."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import AbstractMethod
from headwater.core.records import Completions
from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_process import TableReward, every_response
from headwater.evaluation.exact_tokens import expected, log_policy
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.methods.language.rewards.a_lol import ALoL
from headwater.methods.language.texts.sft import SFT
from headwater.networks.token_table import PrefixTable
from headwater.ops.language.generation import generate
from headwater.runs.learn import learn
from headwater.sources.language.completions import CompletionReplay
from headwater.texts.completion_advantages import advantages, prompt_values

_PROMPTS, _RESPONSES = 20, 30
_RATE, _ROWS = 0.05, 128


def _learn(bad: float, rows: int, updates: int, key):
    """Mean rewards by method, and the share of the data that is kept."""
    keys = jax.random.split(key, 9)
    responses = every_response(_RESPONSES, 1, _PROMPTS)
    values = jax.random.uniform(keys[0], (_PROMPTS, _RESPONSES))
    worse = jax.nn.log_softmax(-4.0 * values, axis=-1)
    low = jax.random.bernoulli(keys[1], bad, (rows,))
    prompt = jax.random.randint(keys[2], (rows,), 0, _PROMPTS)
    logits = jnp.where(low[:, None], worse[prompt], 0.0)
    response = jax.random.categorical(keys[3], logits, axis=-1)
    listed = responses.data
    tokens, mask = listed.tokens[prompt, response], listed.response[prompt, response]
    data = Completions(tokens, mask, values[prompt, response])

    def train(method: AbstractMethod, task, source, key):
        return learn(method, task, source, updates, key=key).state.network

    problem = TokenProblem(PrefixTable(_RESPONSES, 2))
    imitated = train(SFT(learning_rate=_RATE), problem, CompletionReplay(data, _ROWS), keys[4])
    # The reference and the start of all others is what maximum likelihood makes of the data.
    task = TokenProblem(imitated)
    wanted = responses.prompts
    own = _written(imitated, wanted, values, keys[5])
    judged, priority = advantages(data, prompt_values(imitated, own, data))
    best = CompletionReplay(judged, _ROWS, priority)
    networks = {
        "NLL": imitated,
        "weighted BC": train(
            ALoL(importance_sampling_level="none", learning_rate=_RATE),
            task,
            CompletionReplay(data, _ROWS),
            keys[6],
        ),
        "reference-free": train(
            ALoL(importance_sampling_level="none", learning_rate=_RATE), task, best, keys[7]
        ),
        "A-LoL": train(ALoL(learning_rate=_RATE), task, best, keys[8]),
    }
    found = {
        name: jnp.mean(expected(log_policy(network, responses), values))
        for name, network in networks.items()
    }
    return {**found, "kept": jnp.mean((priority > 0.0).astype(jnp.float32))}


def _written(network, prompts, values, key) -> Completions:
    """One judged response of the network to each prompt."""
    data = generate(network, prompts, 1, key=key)
    return Completions(data.tokens, data.response, TableReward(values, _RESPONSES)(data))


def _experiment(
    seed: int, shares: tuple[float, ...], rows: int, updates: int, instances: int
) -> Finding:
    keys = jax.random.split(jax.random.key(seed), instances)
    criteria, means = [], {}
    for bad in shares:
        each = jax.jit(jax.vmap(lambda key, bad=bad: _learn(bad, rows, updates, key)))
        found = {name: np.asarray(x, np.float64) for name, x in each(keys).items()}
        means[f"{bad:g} bad"] = {name: float(x.mean()) for name, x in found.items()}
        order = ("NLL", "weighted BC", "reference-free", "A-LoL")
        for worse, better in itertools.pairwise(order):
            criteria.append(
                Criterion(
                    f"reward of {better} less that of {worse}, {bad:g} bad",
                    mean_of(found[better] - found[worse]),
                    at_least=0.0,
                )
            )
        if bad == 0.5:
            gain = mean_of(found["A-LoL"] - found["NLL"])
            criteria.append(Criterion("what A-LoL gains, half bad", gain, at_least=0.3))
    return Finding(tuple(criteria), {"mean reward, and share of rows kept": means})


CLAIMS = (
    Claim(
        name="a-lol-leftovers",
        statement=(
            "On stored responses of which none, half or most are bad, likelihood weighted by "
            "advantages over the reference beats weighting by rewards, which beats no weights; "
            "importance weights do not hurt. With half of them bad the mean reward, between 0 and "
            "1, is at least 0.3 above that of maximum likelihood."
        ),
        methods=("ALoL", "SFT"),
        paper="baheti2024leftover",
        where="its main results, in a table of 20 prompts and 30 responses",
        scales={
            "smoke": {"shares": (0.5,), "rows": 1500, "updates": 60, "instances": 3},
            "small": {"shares": (0.0, 0.5, 0.8), "rows": 1500, "updates": 400, "instances": 10},
        },
        experiment=_experiment,
    ),
)
