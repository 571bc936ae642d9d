"""Texts that a language model learns from, or writes."""

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.catalogue import learns_from
from headwater.core.errors import DataError, SpecificationError
from headwater.core.feed import Feed
from headwater.core.method import AbstractMethod
from headwater.core.records import (
    ComparisonsAndCompletions,
    CompletionComparisons,
    Completions,
    LabelledCompletions,
)
from headwater.core.source import AbstractHostSource
from headwater.core.tokens import (
    AbstractCompletionReward,
    AbstractPreference,
    Prompts,
    TokenProblem,
)
from headwater.environments.language.token_tasks import ExactMatch
from headwater.networks.hugging_face import family_named
from headwater.networks.low_rank_adapters import Adapted, Matrix
from headwater.networks.pretrained.adapters import matrices_named
from headwater.ops.language.generation import Restrictions, generate
from headwater.runs.feeds.flow import Fed, Flow, HeldOut, Inputs, TextFile, wrong_data
from headwater.runs.options import Options
from headwater.runs.stage import Stage
from headwater.sources.comparisons import (
    AbstractJudge,
)
from headwater.sources.language.completion_pairs import BradleyTerry, JudgedPairs, ReplayAndSampled
from headwater.sources.language.completions import (
    AbstractWriting,
    CompletionReplay,
    SampledCompletions,
    WeightedRewards,
)
from headwater.sources.language.host_rewards import (
    AbstractHostReward,
    HostJudgedPairs,
    HostRewarded,
    TextJudge,
    WeightedHostRewards,
)
from headwater.sources.language.packed import PackedReplay, PackedTexts, shapes_for
from headwater.sources.language.resets import Resets
from headwater.texts.completion_advantages import advantages, prompt_values
from headwater.texts.fitting import Read
from headwater.texts.models import LanguageModel, prompts_within
from headwater.texts.texts import read_comparisons, read_completions, read_labelled, read_prompts

EXACT_MATCH = "exact-match"
"""The reward that is 1 for the completion in the file, else 0."""
_PADDED = 0.7
"""Share of the work from which on texts are read with their padding, in one program."""


def token_problem(model: LanguageModel, options: Options) -> TokenProblem:
    """What methods are told of a model: all of it, or small additions to it, is to be trained.

    Raises `SpecificationError` for additions that are larger than the model allows, or of matrices
    that it does not have.
    """
    rank, width = options.rank, model.decoder.architecture.width
    if not rank and (options.alpha is not None or options.target_modules is not None):
        raise SpecificationError("alpha and target_modules are of adapters: give their rank too")
    if rank > width:
        raise SpecificationError(
            f"rank = {rank}: adapters of a model of width {width} have at most that rank"
        )
    network: Any = model.network
    if rank:
        if model.structure is not None:
            raise SpecificationError(
                "this model reads demonstrations apart from each other, and adapters are of "
                "decoders that do not: leave out the rank"
            )
        key = jax.random.key(options.seed)
        alpha = 2.0 * rank if options.alpha is None else options.alpha
        network = Adapted(
            network, key=key, rank=rank, alpha=alpha, matrices=_matrices(model, options)
        )
    return TokenProblem(network, model.tokenizer.ends)


def _matrices(model: LanguageModel, options: Options) -> tuple[Matrix, ...]:
    if options.target_modules is None:
        return ("query", "value")
    family = None if model.directory is None else family_named(model.directory)
    return matrices_named(options.target_modules, model.decoder, family=family)


class _Texts:
    """The inputs of a language model, and the pieces that its flows are put together from."""

    def __init__(self, method: AbstractMethod, inputs: Inputs, options: Options):
        self.method, self.inputs, self.options = method, inputs, options
        model = inputs.model
        assert model is not None and options.updates and options.batch_size
        self.model: LanguageModel = model
        self.rows: int = options.batch_size
        if not isinstance(inputs.data, Path | TextFile):
            raise wrong_data(method, "a file of texts", inputs.data)
        data = inputs.data
        self.file = data if isinstance(data, TextFile) else TextFile(data)
        self.path: Path = self.file.path

    def fed(self, source: Any, tokens: float, held_out: HeldOut | None) -> Fed:
        assert self.options.updates is not None
        problem = token_problem(self.model, self.options)
        stage = Stage("language", self.method, source, self.options.updates)
        return Fed(stage, problem, held_out, tokens)

    def replay(self, data: PackedTexts, weights: Any = None) -> CompletionReplay | PackedReplay:
        """Rows of stored texts: without their padding, where that saves much.

        Each comes once before any comes again, unless there are weights, or fewer than in a batch.
        """
        passes = weights is None and self.rows <= _rows_of(data)
        width = self.model.decoder.architecture.width
        shapes, share = shapes_for(data, self.rows, width, weights)
        if share > _PADDED:
            return CompletionReplay(data, self.rows, weights, passes)
        return PackedReplay(data, self.rows, shapes, weights, passes)

    def completions(self, path: Path) -> tuple[Completions, float]:
        """Texts, and tokens in one of them."""
        read = read_completions(
            path,
            self.model.tokenizer,
            self.model.decoder.context,
            too_long=self.options.too_long,
            only_answers=self.options.only_answers,
            columns=self.columns,
        )
        _tell(read)
        return read.data, read.tokens_per_record

    def comparisons(self, path: Path) -> tuple[CompletionComparisons, float]:
        """Pairs of texts, and tokens in one of them."""
        self._refuse_only_answers()
        read = read_comparisons(
            path,
            self.model.tokenizer,
            self.model.decoder.context,
            too_long=self.options.too_long,
            columns=self.columns,
        )
        _tell(read)
        return read.data, read.tokens_per_record

    def labelled(self, path: Path) -> tuple[LabelledCompletions, float]:
        """Texts with labels, and tokens in one of them."""
        self._refuse_only_answers()
        read = read_labelled(
            path,
            self.model.tokenizer,
            self.model.decoder.context,
            too_long=self.options.too_long,
            columns=self.columns,
        )
        _tell(read)
        return read.data, read.tokens_per_record

    def prompts(self, path: Path) -> Prompts:
        """Prompts alone, that leave room for a response."""
        if self.options.new_tokens >= self.model.decoder.context:
            raise SpecificationError(
                f"{self.options.new_tokens} new tokens leave no room for prompts in a context of "
                f"{self.model.decoder.context}"
            )
        self._refuse_only_answers()
        read = read_prompts(
            path,
            self.model.tokenizer,
            self.model.decoder.context,
            too_long=self.options.too_long,
            columns=self.columns,
            new_tokens=self.options.new_tokens,
        )
        _tell(read)
        return read.data

    @property
    def columns(self) -> dict[str, str]:
        """The columns that texts are in, by what they hold, where these are others."""
        found: dict[str, str] = {}
        for given in self.options.columns or ():
            role, equals, column = given.partition("=")
            if not (role and equals and column) or role in found:
                raise SpecificationError(
                    f"columns: '{given}' does not say which column holds what: give each once, "
                    "such as prompt=question"
                )
            found[role] = column
        return found

    def _refuse_only_answers(self) -> None:
        if self.options.only_answers:
            raise SpecificationError(
                f"only_answers is about conversations that are learned from whole, and "
                f"{type(self.method).__name__} does not learn from 'messages': leave it out"
            )

    def divided(self, read: Callable[[Path], Any]) -> tuple[Any, Any, float]:
        """What is learned from, what is held out (or `None`), and tokens in a record."""
        found = self.file.read(read, self.path)
        data, tokens = found if isinstance(found, tuple) else (found, 0.0)
        held_out = self.options.held_out
        if held_out is None:
            return data, None, tokens
        try:
            share = float(held_out)
        except ValueError:
            other = self.file.read(read, Path(held_out))
            return data, other[0] if isinstance(other, tuple) else other, tokens
        count = _rows_of(data)
        kept = round(share * count)
        if not 0.0 < share < 1.0 or not 0 < kept < count:
            raise SpecificationError(
                f"held_out = {held_out}: a share of {count} rows must leave at least one on "
                "both sides"
            )
        order = np.random.default_rng(self.options.seed).permutation(count)
        own, others = np.sort(order[kept:]), np.sort(order[:kept])
        parts = (jax.tree.map(lambda x, i=i: jnp.asarray(x)[i], data) for i in (own, others))
        return (*parts, tokens)

    @property
    def rewards(self) -> tuple[Any, ...]:
        """What was given to judge by, else the file's completions."""
        given = self.inputs.reward
        if given is None:
            return (EXACT_MATCH,)
        return given if isinstance(given, tuple) else (given,)

    def judged(self, right: Completions | None) -> AbstractCompletionReward | AbstractHostReward:
        """The reward that was given, the weighted sum of several, or else exact match.

        **Arguments:** `right`: the file's completions, where they are read.

        Raises `SpecificationError` for weights that do not fit, or where the file's completions
        are not read.
        """
        parts = [self._judged_by(reward, right) for reward in self.rewards]
        weights = self.options.reward_weights
        if weights is None:
            weights = (1.0,) * len(parts)
        if len(weights) != len(parts) or not all(map(math.isfinite, weights)):
            listed = " ".join(f"{weight:g}" for weight in weights)
            raise SpecificationError(
                f"reward_weights = {listed}: of {len(parts)} rewards, give a finite number for each"
            )
        if len(parts) == 1 and weights == (1.0,):
            return parts[0]
        compiled = [part for part in parts if isinstance(part, AbstractCompletionReward)]
        if len(compiled) == len(parts):
            return WeightedRewards(tuple(compiled), jnp.asarray(weights, jnp.float32))
        return WeightedHostRewards(tuple(parts), tuple(weights))

    def _judged_by(
        self, reward: Any, right: Completions | None
    ) -> AbstractCompletionReward | AbstractHostReward:
        if isinstance(reward, AbstractCompletionReward):
            return reward
        if not isinstance(reward, str):
            return self.asking(reward)
        if right is None:
            raise SpecificationError(
                f"{type(self.method).__name__} does not look at the file's completions here: leave "
                f"{EXACT_MATCH} out of its rewards"
            )
        return ExactMatch(Completions(right.tokens, right.response))

    def asking(self, function: Callable[..., Any]) -> TextJudge:
        """A Python function that reads what was written as text."""
        if not callable(function):
            raise SpecificationError(
                f"a reward is a function of texts, not a {type(function).__name__}"
            )
        return TextJudge(function, self.model.text, _name_of(function))

    def written(
        self, prompts: Prompts, *, samples: int | None = None, **others: Any
    ) -> SampledCompletions:
        """Responses of the policy to prompts."""
        return SampledCompletions(
            prompts,
            temperature=self.temperature,
            rows=self.rows,
            samples=samples or self.options.samples,
            new_tokens=self.options.new_tokens,
            end=self.model.tokenizer.ends,
            restrictions=self.restrictions,
            **others,
        )

    def answerable(self, data: Completions) -> Prompts:
        """The prompts of texts, if answers fit behind them."""
        return prompts_within(data, self.model, self.path, self.options.new_tokens)

    @property
    def temperature(self) -> float:
        assert self.options.temperature is not None
        return self.options.temperature

    @property
    def restrictions(self) -> Restrictions:
        """On what is drawn from while writing. Raises `SpecificationError` for what cannot be."""
        o = self.options
        found = Restrictions(o.top_k, o.top_p, o.min_p, o.repetition_penalty)
        found.check(self.model.decoder.vocabulary)
        return found

    @property
    def written_tokens(self) -> float:
        return float(self.rows * self.options.samples * self.options.new_tokens)

    def prompts_and_reward(
        self,
    ) -> tuple[Prompts, HeldOut | None, AbstractCompletionReward | AbstractHostReward]:
        """Prompts to answer, those held out, and the reward of answers."""
        if any(isinstance(reward, str) for reward in self.rewards):
            try:
                right, others, _ = self.divided(self.completions)
            except DataError as error:
                if self.inputs.reward is not None:
                    raise
                raise DataError(
                    f"{error}; where there is no right answer to learn, give a reward (--reward)"
                ) from None
            everything = right
            if others is not None:
                everything = _stacked(right, others)
            reward = self.judged(everything)
            prompts = self.answerable(right)
            held = None if others is None else HeldOut(self.answerable(others), reward)
            return prompts, held, reward
        prompts, others, _ = self.divided(self.prompts)
        reward = self.judged(None)
        return prompts, None if others is None else HeldOut(others, reward), reward


def _tell(read: Read[Any]) -> None:
    for note in read.notes:
        print(f"data, note: {note}", file=sys.stderr)


def updates_of_epochs(
    method: AbstractMethod, model: LanguageModel, file: TextFile, options: Options
) -> int:
    """Updates that pass over the stored texts `options.epochs` times.

    Raises `SpecificationError` for methods that draw rows in another way, and `DataError` for
    files that cannot be read.
    """
    assert options.epochs is not None and options.batch_size is not None
    texts = _Texts(method, Inputs(data=file, model=model), options)
    readers = {
        Completions: texts.completions,
        CompletionComparisons: texts.comparisons,
        LabelledCompletions: texts.labelled,
    }
    kind = learns_from(type(method))[1]
    if method.feed is not Feed.STORED or kind not in readers:
        raise SpecificationError(
            f"{type(method).__name__} does not pass over stored texts: give updates, not epochs"
        )
    rows = _rows_of(texts.divided(readers[kind])[0])
    return max(1, math.ceil(options.epochs * rows / options.batch_size))


def _rows_of(data: Any) -> int:
    return jax.tree.leaves(data)[0].shape[0]


def _stored_texts(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    texts = _Texts(method, inputs, options)
    data, others, tokens = texts.divided(texts.completions)
    held = None if others is None else HeldOut(others)
    return texts.fed(texts.replay(data), texts.rows * tokens, held)


def _stored_comparisons(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    texts = _Texts(method, inputs, options)
    data, others, tokens = texts.divided(texts.comparisons)
    held = None if others is None else HeldOut(others)
    return texts.fed(texts.replay(data), texts.rows * tokens, held)


def _stored_labelled(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    texts = _Texts(method, inputs, options)
    data, others, tokens = texts.divided(texts.labelled)
    held = None if others is None else HeldOut(others)
    return texts.fed(texts.replay(data), texts.rows * tokens, held)


def _comparisons_and_written(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    texts = _Texts(method, inputs, options)
    data, others, tokens = texts.divided(texts.comparisons)
    written = texts.written(texts.answerable(data.chosen))
    source = ReplayAndSampled(CompletionReplay(data, texts.rows), written)
    held = None if others is None else HeldOut(others)
    return texts.fed(source, texts.rows * tokens + texts.written_tokens, held)


def _rewarded(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    texts = _Texts(method, inputs, options)
    if options.samples < 2:
        _refuse_if_compared(method, texts)
    prompts, held, reward = texts.prompts_and_reward()
    return texts.fed(_with_reward(texts.written(prompts), reward), texts.written_tokens, held)


def _refuse_if_compared(method: AbstractMethod, texts: _Texts) -> None:
    """Raises `SpecificationError` if a method cannot do with one sample, which its update says."""
    problem = token_problem(texts.model, texts.options)
    key = jax.random.key(0)
    tokens = jnp.zeros((texts.rows, 1, 2), jnp.int32)
    numbers = tokens.astype(jnp.float32)
    data = Completions(tokens, tokens == 0, numbers[..., 0], numbers)
    try:
        state = eqx.filter_eval_shape(method.init, problem, key=key)
        eqx.filter_eval_shape(method.update, state, data, key=key)
    except SpecificationError:
        raise SpecificationError(
            f"{type(method).__name__} compares the responses to a prompt with each other: at least "
            "2 samples are needed"
        ) from None


def _from_resets(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    texts = _Texts(method, inputs, options)
    right, others, _ = texts.divided(texts.completions)
    reward = texts.judged(right if others is None else _stacked(right, others))
    prompts = texts.answerable(right)
    resets = Resets(
        _as_wide(right, prompts.tokens.shape[-1] + options.new_tokens),
        temperature=texts.temperature,
        rows=texts.rows,
        samples=options.samples,
        new_tokens=options.new_tokens,
        end=texts.model.tokenizer.ends,
        restrictions=texts.restrictions,
    )
    held = None if others is None else HeldOut(texts.answerable(others), reward)
    return texts.fed(_with_reward(resets, reward), texts.written_tokens, held)


def _reference_written(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    texts = _Texts(method, inputs, options)
    if options.samples < 2:
        raise SpecificationError(f"{type(method).__name__} compares samples: at least 2 are needed")
    prompts, others, _ = texts.divided(texts.prompts)
    reward = None if inputs.reward is None else texts.judged(None)
    if others is not None and reward is None:
        raise SpecificationError(
            f"{type(method).__name__} knows no reward to evaluate by: give one, or leave out "
            "held_out"
        )
    held = None if others is None else HeldOut(others, reward)
    source = texts.written(prompts, policy=texts.model.network)
    return texts.fed(source, texts.written_tokens, held)


def _judged_pairs(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    texts = _Texts(method, dataclasses.replace(inputs), dataclasses.replace(options, samples=2))
    judge = inputs.judge
    if judge is None:
        prompts, held, reward = texts.prompts_and_reward()
        written = texts.written(prompts)
        source: Any
        if isinstance(reward, AbstractHostReward):
            source = HostJudgedPairs(written, reward)
        else:
            source = JudgedPairs(written, BradleyTerry(reward))
        return texts.fed(source, texts.written_tokens, held)
    prompts, others, _ = texts.divided(texts.prompts)
    if others is not None and inputs.reward is None:
        raise SpecificationError(
            "a judge gives no reward to evaluate by: give a reward too, or leave out held_out"
        )
    held = None if others is None else HeldOut(others, texts.judged(None))
    written = texts.written(prompts)
    if isinstance(judge, AbstractPreference):
        return texts.fed(JudgedPairs(written, judge), texts.written_tokens, held)
    if isinstance(judge, AbstractJudge):
        raise SpecificationError("a judge of episodes does not judge texts: give a function")
    source = HostJudgedPairs(written, texts.asking(judge), rewards=False)
    return texts.fed(source, texts.written_tokens, held)


def _with_advantages(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    """Texts with advantages over the model's own, drawn in proportion to what is positive.

    Without a reward to judge the model's own responses by, the advantage is over what the file's
    responses to such prompts earn.
    """
    texts = _Texts(method, inputs, options)
    data, others, tokens = texts.divided(texts.completions)
    reward = None if inputs.reward is None else texts.judged(None)
    if data.reward is None and reward is None:
        raise DataError(
            f"{texts.path}: {type(method).__name__} learns from rewards: give a column reward, or "
            "a reward"
        )
    if data.reward is None:
        assert reward is not None
        data = _scored(data, reward, texts.rows)
    own = data
    if reward is not None:
        own = _scored(_answers(texts, texts.answerable(data)), reward, texts.rows)
    data, weights = advantages(data, prompt_values(texts.model.decoder, own, data))
    if not jnp.any(weights > 0.0):
        raise DataError(f"{texts.path}: no response is better than expected: none can be learned")
    held = None if others is None else HeldOut(others)
    return texts.fed(texts.replay(data, weights), texts.rows * tokens, held)


def _with_reward(
    writing: SampledCompletions | Resets, reward: Any
) -> AbstractWriting | AbstractHostSource:
    if isinstance(reward, AbstractHostReward):
        return HostRewarded(writing, reward)
    return dataclasses.replace(writing, reward=reward)


def _scored(data: Completions, reward: Any, rows: int) -> Completions:
    if isinstance(reward, AbstractHostReward):
        found = jnp.asarray(reward.rewards(data.tokens, data.response))
    else:
        found = jax.lax.map(reward, Completions(data.tokens, data.response), batch_size=rows)
    return Completions(data.tokens, data.response, found)


def _answers(texts: _Texts, prompts: Prompts) -> Completions:
    """One response of the model to every prompt."""
    model, options = texts.model, texts.options
    key = jax.random.key(options.seed)

    @jax.jit
    def answers(prompts: Prompts) -> Completions:
        keys = jax.random.split(key, prompts.tokens.shape[0])

        def one(each):
            prompt, key = each
            data = generate(
                model.network,
                jax.tree.map(lambda x: x[None], prompt),
                options.new_tokens,
                key=key,
                end=model.tokenizer.ends,
                temperature=texts.temperature,
                restrictions=texts.restrictions,
            )
            return jax.tree.map(lambda x: x[0], Completions(data.tokens, data.response))

        return jax.lax.map(one, (prompts, keys), batch_size=texts.rows)

    return answers(prompts)


def _as_wide(data: Completions, width: int) -> Completions:
    room = width - data.tokens.shape[-1]
    if room <= 0:
        return jax.tree.map(lambda x: x[..., :width] if x.ndim > 1 else x, data)
    return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, room))) if x.ndim > 1 else x, data)


def _stacked(one: Completions, other: Completions) -> Completions:
    width = max(one.tokens.shape[-1], other.tokens.shape[-1])
    parts = [
        _as_wide(Completions(jnp.asarray(x.tokens), jnp.asarray(x.response)), width)
        for x in (one, other)
    ]
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), *parts)


def _name_of(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


_READ = {"updates": 1_000, "batch_size": 16, "seeds": 1}
_WRITING = ("texts", "writing")

FLOWS: dict[tuple[type, Feed], Flow] = {
    (Completions, Feed.STORED): Flow(
        "a language model from texts", ("model", "data"), (), ("texts",), _READ, _stored_texts
    ),
    (Completions, Feed.ADVANTAGES): Flow(
        "a language model from texts and their rewards",
        ("model", "data"),
        ("reward",),
        _WRITING,
        _READ,
        _with_advantages,
    ),
    (CompletionComparisons, Feed.STORED): Flow(
        "a language model from compared texts",
        ("model", "data"),
        (),
        ("texts",),
        _READ,
        _stored_comparisons,
    ),
    (LabelledCompletions, Feed.STORED): Flow(
        "a language model from texts labelled desirable or undesirable",
        ("model", "data"),
        (),
        ("texts",),
        _READ,
        _stored_labelled,
    ),
    (ComparisonsAndCompletions, Feed.BOTH): Flow(
        "a language model from compared texts and what it writes",
        ("model", "data"),
        (),
        _WRITING,
        _READ,
        _comparisons_and_written,
    ),
    (Completions, Feed.SAMPLED): Flow(
        "a language model from rewards of what it writes",
        ("model", "data"),
        ("reward",),
        _WRITING,
        _READ,
        _rewarded,
    ),
    (Completions, Feed.RESETS): Flow(
        "a language model from rewards of how it goes on with stored texts",
        ("model", "data"),
        ("reward",),
        _WRITING,
        _READ,
        _from_resets,
    ),
    (Completions, Feed.REFERENCE): Flow(
        "a language model from what it wrote before training",
        ("model", "data"),
        ("reward",),
        _WRITING,
        _READ,
        _reference_written,
    ),
    (CompletionComparisons, Feed.JUDGED): Flow(
        "a language model from pairs that it writes and a judge compares",
        ("model", "data"),
        ("reward", "judge"),
        _WRITING,
        _READ,
        _judged_pairs,
    ),
}
"""What methods declare, and how that is brought to them."""
