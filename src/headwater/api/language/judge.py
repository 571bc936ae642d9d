"""Judge language models: likelihood, agreement with preferences, and wins over another model."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from headwater.api.inputs import EXACT_MATCH, load_reward
from headwater.api.language.write import answers
from headwater.core import json_text
from headwater.core.errors import DataError, SpecificationError
from headwater.core.records import CompletionComparisons, Completions
from headwater.core.tokens import AbstractCompletionReward, AbstractTokenNetwork
from headwater.environments.language.token_tasks import ExactMatch
from headwater.evaluation.statistics import Interval, frequency, interval
from headwater.evaluation.texts import by_rows, rewarded
from headwater.ops.language.generation import Restrictions
from headwater.ops.language.log_ratios import log_ratios
from headwater.ops.language.tokens import token_log_probabilities
from headwater.runs.options import check_seed
from headwater.sources.language.completions import WeightedRewards
from headwater.texts.fitting import TooLong
from headwater.texts.models import LanguageModel, prompts_within
from headwater.texts.texts import read_comparisons, read_completions


def evaluate_language(
    model: LanguageModel,
    data: str | Path,
    *,
    against: LanguageModel | None = None,
    reward: str | Path | Sequence[str | Path] = "exact-match",
    weights: Sequence[float] | None = None,
    new_tokens: int = 64,
    temperature: float = 1.0,
    greedy: bool = False,
    too_long: TooLong = "refuse",
    seed: int = 0,
) -> dict[str, Interval]:
    """What a file of texts says of a model, with intervals over its rows.

    Of completions: `loss`, nats per token of the responses; and, where there are prompts,
    `exact match` of the model's own responses. Of comparisons: `accuracy`, how often the chosen
    response gains more over `against` (or, without it, is likelier). With `against` or a learned
    `reward` also `reward`, of the model's own responses, and `win rate`: how often theirs is lower
    (a tie counts half).

    **Arguments:** `reward`: `"exact-match"`, the run of a reward model or the directory of one that
    transformers loads, or several of these, which are added up; `weights`: one for each (default:
    each counts once).

    Raises `SpecificationError` for weights that do not fit, and what `load_reward` raises.
    """
    check_seed(seed)
    named = [reward] if isinstance(reward, str | Path) else list(reward)
    if weights is not None and (len(weights) != len(named) or not np.isfinite(weights).all()):
        listed = " ".join(f"{weight:g}" for weight in weights)
        raise SpecificationError(
            f"weights = {listed}: of {len(named)} rewards, give a finite number for each"
        )
    if not named:
        raise SpecificationError("the list of rewards is empty: give one at least")
    compared = _holds_comparisons(data)
    context = model.decoder.context
    found: dict[str, Interval] = {}
    if compared:
        pairs = read_comparisons(data, model.tokenizer, context, too_long=too_long).data
        found["accuracy"] = _of_rows(_agreement(model, against, pairs))
        right = pairs.chosen
    else:
        right = read_completions(data, model.tokenizer, context, too_long=too_long).data
        found["loss"] = _weighted(*_losses(model, right))
    start = np.argmax(np.asarray(right.response), axis=-1)
    answered = int(start.max()) > len(model.tokenizer.begin)
    exact = len(named) == 1 and weights is None and str(named[0]) == EXACT_MATCH
    if not answered or (compared and exact):
        return found
    prompts = prompts_within(right, model, data, new_tokens)
    parts: list[AbstractCompletionReward] = [
        ExactMatch(Completions(right.tokens, right.response))
        if str(name) == EXACT_MATCH
        else load_reward(name, model.decoder.vocabulary)
        for name in named
    ]
    counted = jnp.asarray([1.0] * len(parts) if weights is None else weights, jnp.float32)
    judge = parts[0] if exact else WeightedRewards(tuple(parts), counted)

    def own(of: LanguageModel) -> np.ndarray:
        key = jax.random.key(seed)
        texts = answers(of, prompts, new_tokens, 1, temperature, Restrictions(), greedy, key)
        return by_rows(rewarded, judge, texts).reshape(-1)

    scores = own(model)
    found["exact match" if exact else "reward"] = _of_rows(scores)
    if against is not None:
        if against.decoder.vocabulary != model.decoder.vocabulary:
            raise DataError("the two models have different vocabularies: judge them one by one")
        reference = own(against)
        found["win rate"] = _of_rows((scores > reference) + 0.5 * (scores == reference))
    return found


def _of_rows(values: np.ndarray) -> Interval:
    values = np.asarray(values, np.float64)
    if np.isin(values, (0.0, 1.0)).all():
        # Resampling rows that all agree would leave no doubt at all.
        return frequency(values.sum(), values.size)
    return interval(values, "mean")


def _weighted(losses: np.ndarray, weights: np.ndarray) -> Interval:
    """The mean over tokens, with a bootstrap over rows."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(losses), (2000, len(losses)))
    means = losses[drawn].sum(1) / weights[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(losses.sum() / weights.sum()), float(low), float(high), 0.95, len(losses))


def _losses(model: LanguageModel, data: Completions) -> tuple[np.ndarray, np.ndarray]:
    """Of each row the negative log-likelihood of its response, and its tokens."""
    data = Completions(data.tokens, data.response)
    log_probabilities = by_rows(_total_log_probability, model.network, data, unpadded=True)
    return -np.asarray(log_probabilities, np.float64), np.asarray(data.response).sum(-1)


def _agreement(
    model: LanguageModel, against: LanguageModel | None, pairs: CompletionComparisons
) -> np.ndarray:
    if against is None:
        first, second = (-_losses(model, part)[0] for part in (pairs.chosen, pairs.rejected))
        return np.asarray(first > second, np.float64)

    networks = (model.network, against.network)
    return np.asarray(by_rows(_gains_more, networks, pairs, unpadded=True), np.float64)


def _total_log_probability(network: AbstractTokenNetwork, data: Completions):
    return jnp.sum(token_log_probabilities(network, data), axis=-1)


def _gains_more(networks, pairs: CompletionComparisons):
    network, before = networks
    chosen, rejected = log_ratios(network, before, pairs)
    return chosen.ratio > rejected.ratio


def _holds_comparisons(path: str | Path) -> bool:
    path = Path(path)
    if path.suffix.lower() in (".txt", ".text", ".md"):
        return False
    try:
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet

            return "chosen" in pyarrow.parquet.read_schema(path).names
        with path.open(encoding="utf-8") as file:
            return "chosen" in json_text.parse(next((line for line in file if line.strip()), "{}"))
    except (OSError, ValueError, TypeError):
        # The reader says what is wrong.
        return False
