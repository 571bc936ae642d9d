"""Train, sample and judge language models that are directories in Hugging Face's form."""

import dataclasses
import json
import math
import typing
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from headwater.api.specification import check_seed
from headwater.core import json_text
from headwater.core.catalogue import build_method, method_class, settings
from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.core.listing import method_modules
from headwater.core.method import AbstractCompletionScorer, AbstractMethod, AbstractTokenPolicy
from headwater.core.records import Completions
from headwater.core.source import AbstractSource
from headwater.core.tokens import AbstractCompletionReward, Prompts, TokenProblem
from headwater.environments.language.token_tasks import ExactMatch, prompts_of
from headwater.networks.decoder import Decoder, Precision
from headwater.networks.hugging_face import read_decoder, write_decoder
from headwater.networks.low_rank_adapters import Adapted
from headwater.ops.language.generation import generate
from headwater.runs import checkpoint
from headwater.runs.directory import RunDirectory
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.completion_pairs import BradleyTerry, JudgedPairs, StoredBesideWritten
from headwater.sources.completions import Stored, Written
from headwater.sources.resets import Resets
from headwater.texts.completion_advantages import advantages, prompt_values
from headwater.texts.texts import (
    Read,
    TooLong,
    read_comparisons,
    read_completions,
    read_prompts,
)
from headwater.texts.tokenizers import AbstractTokenizer, ByteTokenizer, read_tokenizer

_STORED = ("SFT", "MeZO", "RaPTr")
_COMPARED = ("DPO", "IPO", "RewardModel")
_WRITTEN = ("Reinforce", "RLOO", "GRPO", "PPO")
TRAINABLE = (
    *(*_STORED, *_COMPARED, *_WRITTEN),
    *("ALoL", "DRPO", "HyPO", "INPO", "RLHFSharpening"),
)
"""Methods that commands can feed. Those of others need a source that is made in Python."""

_MODEL = "model"


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """A model with what turns text into its tokens.

    **Arguments:** `decoder`; `tokenizer`; `directory`: where both are, if they are in one.
    """

    decoder: Decoder
    tokenizer: AbstractTokenizer
    directory: Path | None = None


@dataclasses.dataclass(frozen=True)
class LanguageSettings:
    """What a training run of a language model was asked for.

    **Arguments:** `method`: its name; `hyper_parameters`; `model`: a directory; `data`: a file;
    `updates`; `rows`: texts or prompts per update; `samples`: responses to each prompt, and
    `new_tokens`: in a response at most, of methods that write; `temperature`: of writing; `reward`:
    `"exact-match"` with the file's completions, or the run of a `RewardModel`; `rank`: of low-rank
    adapters (0: all weights learn); `dtype`: what to compute in; `too_long`: see
    `read_completions`; `seed`.
    """

    method: str
    hyper_parameters: dict[str, Any]
    model: str
    data: str
    updates: int
    rows: int = 16
    samples: int = 8
    new_tokens: int = 64
    temperature: float = 1.0
    reward: str = "exact-match"
    rank: int = 0
    dtype: Precision | None = None
    too_long: TooLong = "refuse"
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class LanguageRun:
    """A finished run.

    **Arguments:** `path`; `model`: directory of what was learned, which `transformers` loads;
    `metrics`: the last row; `tokens_per_second`: learned from, of the last stretch that was logged.
    """

    path: Path
    model: Path
    metrics: dict[str, float]
    tokens_per_second: float


def load_language_model(
    directory: str | Path, *, dtype: Precision | None = None, stored: Precision | None = None
) -> LanguageModel:
    """The model and the tokenizer in a directory; bytes, if there is no `tokenizer.json`.

    Raises `DataError` for what is missing, damaged, or does not fit together.
    """
    directory = Path(directory)
    decoder = read_decoder(directory, dtype=dtype, stored=stored)
    tokenizer: AbstractTokenizer = ByteTokenizer()
    if (directory / "tokenizer.json").is_file():
        tokenizer = read_tokenizer(directory)
    try:
        tokenizer.fits(decoder.vocabulary)
    except DataError as error:
        raise DataError(f"{directory}: {error}") from None
    return LanguageModel(decoder, tokenizer, directory)


def train_language(
    asked: LanguageSettings, out: str | Path, *, progress: bool | None = None
) -> LanguageRun:
    """Trains a language model, and writes what was learned to `out/model`.

    A run that was interrupted goes on if the same is asked for again.

    **Arguments:** `asked`; `out`: the run's directory; `progress`: show a bar.

    Raises `SpecificationError` or `DataError` for what cannot be done, and `RunError` if `out`
    holds something else.
    """
    method = language_method(asked.method, _at_the_same_temperature(asked))
    if min(asked.updates, asked.rows, asked.samples, asked.new_tokens) < 1 or asked.rank < 0:
        raise SpecificationError(
            "updates, rows, samples and new tokens must be at least 1, the rank at least 0"
        )
    if not 0.0 <= asked.temperature < math.inf:
        raise SpecificationError(
            f"temperature = {asked.temperature}: it must be finite, at least 0"
        )
    check_seed(asked.seed)
    out = Path(out)
    existing = (out / "run.json").is_file()
    if existing:
        _refuse_another(out, asked, method)
    model = load_language_model(asked.model, dtype=asked.dtype, stored=_stored(asked))
    source, tokens = _source(asked, model)
    problem = TokenProblem(_network(asked, model.decoder), model.tokenizer.end)
    stage = Stage("language", method, source, asked.updates)
    if existing:
        directory = RunDirectory.open(out)
    else:
        directory = RunDirectory.create(out, {"kind": "language", **_asked(asked, method)})
    result = run([stage], problem, seed=asked.seed, directory=directory, progress=progress)
    state = jax.tree.map(lambda x: x[0], result.outcomes["language"].state)
    learned = out / _MODEL
    if isinstance(method, AbstractTokenPolicy):
        network = method.network(state)
        network = network.merged() if isinstance(network, Adapted) else network
        assert isinstance(network, Decoder)
        end = model.tokenizer.end
        write_decoder(
            network,
            learned,
            tokenizer=model.directory,
            end=end if end >= 0 else None,
            overwrite=True,
        )
        if isinstance(model.tokenizer, ByteTokenizer):
            model.tokenizer.write(learned)
    rows = [row for row in result.metrics if "updates_per_second" in row]
    pace = float(rows[-1]["updates_per_second"]) if rows else 0.0
    last = {name: float(np.mean(v)) for name, v in (rows[-1]["metrics"] if rows else {}).items()}
    return LanguageRun(out, learned, last, pace * tokens)


def language_method(name: str, hyper_parameters: dict[str, Any]) -> AbstractMethod:
    """A method for language models that `train_language` can feed.

    Raises `SpecificationError` for any other, and for hyper-parameters that it does not have.
    """
    cls = method_class(name)
    if not method_modules()[cls.__name__].startswith("headwater.methods.language."):
        raise SpecificationError(
            f"{cls.__name__} is no method for language models: take one of {', '.join(TRAINABLE)}"
        )
    if cls.__name__ not in TRAINABLE:
        raise SpecificationError(
            f"{cls.__name__} needs more than a file of texts: build its source in Python (see "
            f"docs/language.md), or take one of {', '.join(TRAINABLE)}"
        )
    return build_method(name, hyper_parameters)


def _at_the_same_temperature(asked: LanguageSettings) -> dict[str, Any]:
    """Hyper-parameters under which the trainer sees the chances that the sampler draws by."""
    fields = {field.name for field in dataclasses.fields(method_class(asked.method))}
    given = asked.hyper_parameters
    if "temperature" not in fields:
        return given
    if "temperature" in given:
        told = settings(build_method(asked.method, given))["temperature"]
        if told != asked.temperature:
            raise SpecificationError(
                f"texts are written at temperature {asked.temperature}, but {asked.method} was "
                f"told {told}: give the temperature once"
            )
    return {**given, "temperature": asked.temperature}


def _stored(asked: LanguageSettings) -> Precision | None:
    # Steps of fine-tuning are too small for bfloat16; frozen weights can stay in it.
    return "float32" if asked.rank == 0 else None


def _network(asked: LanguageSettings, decoder: Decoder):
    if asked.rank == 0:
        return decoder
    if asked.rank > decoder.architecture.width:
        raise SpecificationError(
            f"rank = {asked.rank}: adapters of a model of width {decoder.architecture.width} have "
            "at most that rank"
        )
    return Adapted(decoder, key=jax.random.key(asked.seed), rank=asked.rank, alpha=2.0 * asked.rank)


def _asked(asked: LanguageSettings, method: AbstractMethod) -> dict[str, Any]:
    plain = {**dataclasses.asdict(asked), "method": type(method).__name__}
    plain["hyper_parameters"] = settings(method)
    return plain


def _refuse_another(out: Path, asked: LanguageSettings, method: AbstractMethod) -> None:
    stored = RunDirectory.open(out).specification
    if stored.get("kind") != "language":
        raise RunError(f"{out} already holds another kind of run: choose another name")
    wanted = json.loads(json.dumps(_asked(asked, method), default=str))
    different = [name for name in wanted if stored.get(name) != wanted[name]]
    if different:
        raise RunError(
            f"{out} holds a run with other settings ({different[0]} is "
            f"{stored.get(different[0])!r}, not {wanted[different[0]]!r}): choose another name, or "
            "give the same settings to continue it"
        )


# Sources ----------------------------------------------------------------------------------------


def _source(asked: LanguageSettings, model: LanguageModel) -> tuple[AbstractSource, float]:
    """Where the method's batches come from, and how many tokens there are in one, about."""
    name = method_class(asked.method).__name__
    if name in _COMPARED or name == "HyPO":
        return _compared(asked, model, name)
    if name in _STORED:
        read = _completions(asked, model)
        return Stored(read.data, asked.rows), asked.rows * read.tokens_per_record
    if name == "ALoL":
        return _advantageous(asked, model)
    prompts, right = _prompts(asked, model, judged=name != "RLHFSharpening")
    if name == "RLHFSharpening":
        if asked.samples < 2:
            raise SpecificationError("RLHFSharpening compares samples: at least 2 are needed")
        written = _written(asked, model, prompts, policy=model.decoder)
        return written, _written_tokens(asked)
    reward = _reward(asked, model, right)
    if name == "INPO":
        pairs = dataclasses.replace(asked, samples=2)
        written = _written(pairs, model, prompts)
        return JudgedPairs(written, BradleyTerry(reward)), _written_tokens(pairs)
    if name == "DRPO":
        assert right is not None
        wide = prompts.tokens.shape[-1] + asked.new_tokens
        source = Resets(
            _as_wide(right, wide),
            reward,
            temperature=asked.temperature,
            rows=asked.rows,
            samples=asked.samples,
            new_tokens=asked.new_tokens,
            end=model.tokenizer.end,
        )
        return source, _written_tokens(asked)
    return _written(asked, model, prompts, reward=reward), _written_tokens(asked)


def _compared(asked: LanguageSettings, model: LanguageModel, name: str):
    read = read_comparisons(
        asked.data, model.tokenizer, model.decoder.context, too_long=asked.too_long
    )
    stored, tokens = Stored(read.data, asked.rows), asked.rows * read.tokens_per_record
    if name != "HyPO":
        return stored, tokens
    prompts = prompts_within(read.data.chosen, model, asked.data, asked.new_tokens)
    written = _written(asked, model, prompts)
    return StoredBesideWritten(stored, written), tokens + _written_tokens(asked)


def _advantageous(asked: LanguageSettings, model: LanguageModel):
    """Texts with advantages over the model's own, drawn in proportion to what is positive.

    Without a learned reward to judge the model's own responses by, the advantage is over what the
    file's responses to such prompts earn.
    """
    read = _completions(asked, model)
    data = read.data
    learned = None if asked.reward == "exact-match" else _reward(asked, model, None)
    if data.reward is None and learned is None:
        raise DataError(
            f"{asked.data}: ALoL learns from rewards: give a column reward, or a run of "
            "RewardModel as the reward"
        )
    if data.reward is None:
        assert learned is not None
        data = _judged(data, learned, asked.rows)
    own = data
    if learned is not None:
        prompts = prompts_within(data, model, asked.data, asked.new_tokens)
        key = jax.random.key(asked.seed)
        own = _answers(asked, model, prompts, learned, key)
    data, weights = advantages(data, prompt_values(model.decoder, own, data))
    if not jnp.any(weights > 0.0):
        raise DataError(f"{asked.data}: no response is better than expected: none can be learned")
    return Stored(data, asked.rows, weights), asked.rows * read.tokens_per_record


def _judged(data: Completions, reward: AbstractCompletionReward, rows: int) -> Completions:
    found = jax.lax.map(reward, Completions(data.tokens, data.response), batch_size=rows)
    return Completions(data.tokens, data.response, found)


def _answers(asked: LanguageSettings, model: LanguageModel, prompts: Prompts, reward, key):
    """One response of the model to every prompt, judged."""

    @jax.jit
    def answers(prompts: Prompts) -> Completions:
        count = prompts.tokens.shape[0]
        keys = jax.random.split(key, count)

        def one(each):
            prompt, key = each
            data = generate(
                model.decoder,
                jax.tree.map(lambda x: x[None], prompt),
                asked.new_tokens,
                key=key,
                end=model.tokenizer.end,
                temperature=asked.temperature,
            )
            judged = Completions(data.tokens, data.response, reward(data))
            return jax.tree.map(lambda x: x[0], judged)

        return jax.lax.map(one, (prompts, keys), batch_size=asked.rows)

    return answers(prompts)


def _completions(asked: LanguageSettings, model: LanguageModel) -> Read[Completions]:
    return read_completions(
        asked.data, model.tokenizer, model.decoder.context, too_long=asked.too_long
    )


def _prompts(
    asked: LanguageSettings, model: LanguageModel, *, judged: bool
) -> tuple[Prompts, Completions | None]:
    """Prompts to answer, and right answers if they are needed."""
    context = model.decoder.context
    room = context - asked.new_tokens
    if room < 1:
        raise SpecificationError(
            f"{asked.new_tokens} new tokens leave no room for prompts in a context of {context}"
        )
    begins_with_texts = method_class(asked.method).__name__ == "DRPO"
    if not begins_with_texts and (not judged or asked.reward != "exact-match"):
        prompts = read_prompts(asked.data, model.tokenizer, room, too_long=asked.too_long)
        return prompts.data, None
    right = _completions(asked, model).data
    return prompts_within(right, model, asked.data, asked.new_tokens), right


def _written_tokens(asked: LanguageSettings) -> float:
    return float(asked.rows * asked.samples * asked.new_tokens)


def prompts_within(
    data: Completions, model: LanguageModel, path: str | Path, new_tokens: int
) -> Prompts:
    """The prompts of texts, of one width. Raises `DataError` if answers do not fit behind them."""
    longest = int(np.argmax(np.asarray(data.response), axis=-1).max())
    context, least = model.decoder.context, len(model.tokenizer.begin)
    if longest <= least or longest + new_tokens > context:
        raise DataError(
            f"{path}: prompts of up to {longest} tokens and {new_tokens} new ones must "
            f"fit into a context of {context}, and no prompt may be empty: take fewer new tokens, "
            "or a file with the columns prompt and completion"
        )
    return prompts_of(data, longest)


def _as_wide(data: Completions, width: int) -> Completions:
    room = width - data.tokens.shape[-1]
    if room <= 0:
        return jax.tree.map(lambda x: x[..., :width] if x.ndim > 1 else x, data)
    return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, room))) if x.ndim > 1 else x, data)


def _written(
    asked: LanguageSettings,
    model: LanguageModel,
    prompts: Prompts,
    *,
    reward: AbstractCompletionReward | None = None,
    policy: Decoder | None = None,
) -> Written:
    return Written(
        prompts,
        reward=reward,
        policy=policy,
        temperature=asked.temperature,
        rows=asked.rows,
        samples=asked.samples,
        new_tokens=asked.new_tokens,
        end=model.tokenizer.end,
    )


class LearnedReward(AbstractCompletionReward):
    """What a reward model, as it was learned, says of responses."""

    method: AbstractCompletionScorer
    state: Any

    def __call__(self, data: Completions) -> Float[Array, "*batch"]:
        return jax.lax.stop_gradient(self.method.rate(self.state, data))


def _reward(
    asked: LanguageSettings, model: LanguageModel, right: Completions | None
) -> AbstractCompletionReward:
    if asked.reward == "exact-match":
        if right is None:
            raise SpecificationError("the reward exact-match needs a file with completions")
        return ExactMatch(Completions(right.tokens, right.response))
    return load_reward(asked.reward, model.decoder.vocabulary)


def load_reward(path: str | Path, vocabulary: int | None = None) -> LearnedReward:
    """The reward model that a run of `RewardModel` learned.

    **Arguments:** `vocabulary`: of the policy that is to be judged. Raises `RunError` if the run
    is of something else or has no checkpoint, `DataError` if the vocabularies differ.
    """
    directory = RunDirectory.open(path)
    stored = directory.specification
    if stored.get("kind") != "language" or stored.get("method") != "RewardModel":
        raise RunError(f"{path} is no run of RewardModel: train one, or use exact-match")
    hints = typing.get_type_hints(LanguageSettings)
    wrong = [n for n, hint in hints.items() if not json_text.fits(stored.get(n, ...), hint)]
    if wrong:
        raise RunError(f"{path}: run.json does not say as a run would what its {wrong[0]} was")
    asked = LanguageSettings(**{name: stored[name] for name in hints})
    positions = checkpoint.find(directory.checkpoints)
    if not positions or positions[-1].update < asked.updates:
        raise RunError(f"{path} is not finished: give its command again to continue it")
    method = language_method(asked.method, asked.hyper_parameters)
    assert isinstance(method, AbstractCompletionScorer)
    base = load_language_model(asked.model, dtype=asked.dtype, stored=_stored(asked))
    if vocabulary is not None and base.decoder.vocabulary != vocabulary:
        raise DataError(
            f"{path}: its {base.decoder.vocabulary} tokens are not the policy's {vocabulary}: "
            "train a reward model that begins with the same tokenizer"
        )
    problem = TokenProblem(_network(asked, base.decoder), base.tokenizer.end)
    shapes = eqx.filter_eval_shape(
        lambda keys: jax.vmap(lambda key: method.init(problem, key=key))(keys),
        jax.random.split(jax.random.key(0), 1),
    )
    newest = checkpoint.path_of(directory.checkpoints, positions[-1])
    state = checkpoint.restore(shapes, checkpoint.read(newest)["method"], str(newest))
    return LearnedReward(method, jax.tree.map(lambda x: jnp.asarray(x)[0], state))
