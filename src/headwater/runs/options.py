"""The options of training: declared here, and read by Python, the command line and tables alike."""

import dataclasses
import math
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from headwater.core import json_text
from headwater.core.errors import SpecificationError, nearest

GROUPS = {
    "training": "training",
    "data": "logged-transition",
    "segments": "segment-comparison",
    "acting": "acting",
    "adapting": "adaptation",
    "finite": "finite-process",
    "pulls": "bandit",
    "queries": "black-box",
    "rewards": "reward",
    "texts": "language-model",
    "writing": "text-writing",
}
"""Groups of options, and what each is called."""

Recipe = Literal[
    "wsrl", "keep-data", "proto", "staged", "by-log", "ppo", "rlpd", "continue", "dagger", "scratch"
]
"""Ways of going online."""
DEFAULT_RECIPE: Recipe = "keep-data"
"""Unless another is asked for: what it is worth is in docs/real_run.md."""

Parallel = Literal["seeds", "batch", "model"]
"""What is spread over several devices."""

MOST_SEEDS = 10_000
"""More than this is a slip, which would fill the memory before anything is said."""
LARGEST_SEED = 2**32 - 1
_LARGEST_COUNT = 2**31 - 1
"""Updates and steps are counted in 32 bits."""
_LARGEST_BATCH = 10_000_000


def _option(
    default: Any,
    group: str,
    text: str,
    *,
    least: int | float | None = None,
    most: int | float | None = None,
    above: int | float | None = None,
    below: int | float | None = None,
    value: str = "N",
    short: str | None = None,
) -> Any:
    description = {"group": group, "text": text, "value": value, "short": short}
    limits = {"least": least, "most": most, "above": above, "below": below}
    return dataclasses.field(default=default, metadata={**description, **limits})


@dataclasses.dataclass(frozen=True)
class Options:
    """What can be said about training besides what is learned from.

    `None` leaves the choice to what the method learns from. `described` lists them all. Raises
    `SpecificationError`, naming the option, for a value of another type or out of its range.
    """

    seeds: int | tuple[int, ...] | None = _option(
        None,
        "training",
        "How many seeds to train (in Python: or which); by default 4, or 1 of a language model.",
    )
    updates: int | None = _option(
        None,
        "training",
        "Updates, where nothing is acted; by default 100,000 on transitions, 10,000 on rounds of a "
        "bandit, 1,000 on texts, and 1 on a log of a finite process, which each update sees as a "
        "whole.",
        least=1,
        most=_LARGEST_COUNT,
    )
    batch_size: int | None = _option(
        None,
        "training",
        "Rows, texts, pairs or prompts per gradient step; by default 256 rows, 16 texts, or 1 "
        "round of a bandit or evaluation of a black box, after so many of which its method learns.",
        least=1,
        most=_LARGEST_BATCH,
    )
    evaluations: int = _option(
        10, "training", "How often to evaluate.", least=1, most=_LARGEST_COUNT
    )
    keep_best: bool = _option(
        False,
        "training",
        "Keep what did best when it was evaluated, of each seed, rather than what came last.",
        value="",
    )
    patience: int | None = _option(
        None,
        "training",
        "Stop once every seed has had so many evaluations without a better one, and keep the best.",
        least=1,
        most=_LARGEST_COUNT,
    )
    track: str | None = _option(
        None,
        "training",
        "Where metrics and evaluations go besides the run's files: `tensorboard` (needs the extra "
        "headwater[tensorboard]) writes RUN/tensorboard.",
        value="{tensorboard}",
    )
    episodes: int = _option(
        10, "training", "Episodes per evaluation and seed, in an environment.", least=1,
        most=_LARGEST_COUNT,
    )  # fmt: skip
    seed: int = _option(0, "training", "Root of all randomness.")
    parallel: Parallel = _option(  # noqa: RUF009 (that an alias cannot change is not seen)
        "seeds",
        "training",
        "What is spread over several devices: seeds, as they fit; the rows of each `batch`; or the "
        "arrays of the `model`, each cut along its longest axis, for one that fills a device.",
        value="{seeds,batch,model}",
    )
    precision: Literal["default", "bfloat16"] = _option(
        "default",
        "training",
        "Of the large products in networks while it learns: `bfloat16` is faster on processors "
        "with matrix units (AMX; needs the extra headwater[mkl]), and rounds to 8 bits. Each "
        "product keeps to one thread, so have a seed for each processor.",
        value="{default,bfloat16}",
    )
    top: float | None = _option(
        None,
        "data",
        "Learn only from this fraction of the episodes, the best by return.",
        value="X",
    )
    weights: Literal["return", "advantage"] | None = _option(
        None,
        "data",
        "Draw rows by the return (RW) or the advantage (AW) of their episode; by default "
        "uniformly.",
        value="{return,advantage}",
    )
    weight_temperature: float = _option(
        0.1, "data", "Of the weights; smaller is more selective.", above=0.0, value="X"
    )
    online_ready: bool = _option(
        False,
        "data",
        "Learn with ten layer-normalised critics, two of which bound the target, in methods that "
        "can (CQL, Cal-QL): `adapt` then goes on with them. What is set otherwise stays so.",
        value="",
    )
    reward_scale: float | Literal["deviation", "return_range"] | None = _option(
        None,
        "data",
        "What rewards are multiplied by while a method learns; by default what the method says, "
        "which is `deviation` (one over the standard deviation of a logged reward) where it learns "
        "values from a log; `return_range`: 1000 over the range of logged returns; 1: nothing.",
        above=0.0,
        value="{deviation,return_range}|X",
    )
    from_disk: bool = _option(
        False, "data", "Leave the data (a column directory) on disk and draw from there.", value=""
    )
    comparisons: str | None = _option(
        None,
        "segments",
        "File of answers about pairs of segments of the log, which `headwater data compare` makes.",
        value="FILE",
    )
    steps: int = _option(
        100_000,
        "acting",
        "Environment steps of a method that acts; in a finite process as many whole episodes as "
        "they allow, and of a black box the evaluations.",
        least=1,
        most=_LARGEST_COUNT,
    )
    random_steps: int | None = _option(
        None,
        "acting",
        "Random steps before a method that acts learns; by default a tenth of the steps, at most "
        "5,000.",
        least=0,
        most=_LARGEST_COUNT,
    )
    block: int | None = _option(
        None,
        "acting",
        "Environment steps between the updates of a method that acts, of which there are then as "
        "many; by default 1, or 8 where the simulator is not compiled; of methods that learn from "
        "what they have just done alone, such as PPO, 2,048, and one update for each.",
        least=1,
        most=_LARGEST_COUNT,
    )
    copies: int | None = _option(
        None,
        "acting",
        "Copies of the environment that share the steps of a block; by default 1, or 8 for methods "
        "such as PPO.",
        least=1,
        most=100_000,
    )
    recipe: Recipe | None = _option(  # noqa: RUF009 (that an alias cannot change is not seen)
        None,
        "adapting",
        "How to go online: `keep-data`, `by-log`, `staged`, `proto`, `wsrl`, `ppo`, `rlpd`, "
        "`continue`, `dagger` or `scratch`.",
        value="RECIPE",
        short="-r",
    )
    keep_data: float | None = _option(
        None,
        "adapting",
        "Share of every batch that is from the log, in `keep-data`, `proto`, `staged`, `by-log`, "
        "`rlpd`, `continue` and `dagger`; by default half.",
        above=0.0,
        below=1.0,
        value="X",
    )
    warm_up_steps: int | None = _option(
        None,
        "adapting",
        "Steps of the offline policy before the first update of `wsrl`, `keep-data`, `proto`, "
        "`staged` and `by-log`; by default a fifth of the steps, at most 5,000.",
        least=0,
        most=_LARGEST_COUNT,
    )
    updates_per_step: int = _option(
        1,
        "adapting",
        "Updates for each environment step.",
        least=1,
        most=_LARGEST_COUNT,
    )
    critic_fit_updates: int = _option(
        3_000,
        "adapting",
        "Updates that fit fresh critics to the offline actor on the log, before the first new "
        "step, where the offline critics cannot be taken over.",
        least=1,
        most=_LARGEST_COUNT,
    )
    known_reward: bool = _option(
        False, "finite", "Tell the method the expected rewards of the process.", value=""
    )
    budgets: tuple[float, ...] | None = _option(
        None,
        "finite",
        "Upper bounds of the expected sums of costs, of methods that keep to such.",
        value="X …",
    )
    reward_range: tuple[float, ...] | None = _option(
        None,
        "rewards",
        "Lowest and highest reward that a step of a finite process or a row of a bandit's log may "
        "have: what is certified is about it. By default 0 and 1, what a bandit's log says, or as "
        "far as the rewards of a known process go.",
        value="X …",
    )
    delay: int = _option(
        0,
        "pulls",
        "Batches of pulls whose rewards are on their way while a bandit goes on.",
        least=0,
        most=10_000,
    )
    shows_all: bool = _option(
        False, "pulls", "Show what every arm would have earned, not just the one pulled.", value=""
    )
    held_out: str | None = _option(
        None,
        "texts",
        "File to evaluate on, or the share of the data to keep for it, such as 0.1; by default "
        "nothing is evaluated.",
        value="FILE|X",
    )
    epochs: float | None = _option(
        None,
        "texts",
        "Passes over stored texts, instead of `updates`: in each of them every row comes once.",
        above=0.0,
        value="X",
    )
    rank: int = _option(
        0,
        "texts",
        "Of low-rank adapters, the only weights that learn then; 0 trains all weights.",
        least=0,
        most=_LARGEST_COUNT,
    )
    alpha: float | None = _option(
        None,
        "texts",
        "An adapter counts alpha over rank times (`lora_alpha` in PEFT); by default twice.",
        above=0.0,
        value="X",
    )
    target_modules: tuple[str, ...] | None = _option(
        None,
        "texts",
        "Matrices of each layer that get adapters: query, key, value, output, gate, up, down, or "
        "as PEFT names them (q_proj, all-linear); by default query and value.",
        value="NAME …",
    )
    adapters: str | None = _option(
        None,
        "texts",
        "Directory of adapters in PEFT's form that are merged into the model before it learns.",
        value="DIR",
    )
    too_long: Literal["refuse", "drop", "cut_prompt", "cut_response"] = _option(
        "refuse",
        "texts",
        "What happens to rows that do not fit into the model's context.",
        value="{refuse,drop,cut_prompt,cut_response}",
    )
    only_answers: bool = _option(
        False,
        "texts",
        "Learn only what the assistant says of conversations (`messages`), not the whole.",
        value="",
    )
    columns: tuple[str, ...] | None = _option(
        None,
        "texts",
        "Which column holds what, where that is not what it is called: prompt=question (in Python: "
        "or a dictionary); of prompt, completion, chosen, rejected, text, messages, reward and "
        "label.",
        value="WHAT=COLUMN …",
    )
    dtype: Literal["float32", "bfloat16"] | None = _option(
        None,
        "texts",
        "What to compute in; by default what the model says.",
        value="{float32,bfloat16}",
    )
    gradient_checkpointing: bool = _option(
        False,
        "texts",
        "Compute again for the gradient what layers compute, rather than keep it: less memory, "
        "more time.",
        value="",
    )
    gradient_accumulation: int = _option(
        1,
        "texts",
        "Equal parts in which the model reads a batch for its gradient, one after the other: less "
        "memory, more time (each is read twice), and the gradient of the whole batch.",
        least=1,
        most=_LARGEST_COUNT,
    )
    reward_weights: tuple[float, ...] | None = _option(
        None,
        "writing",
        "What each of several rewards counts, which are added up; by default 1.",
        value="X …",
    )
    samples: int = _option(
        8,
        "writing",
        "Responses to each prompt; pairs are always two.",
        least=1,
        most=_LARGEST_COUNT,
    )
    new_tokens: int = _option(
        64, "writing", "Tokens in a response at most.", least=1, most=_LARGEST_COUNT
    )
    temperature: float | None = _option(
        None, "writing", "Of writing; by default that of the method, or 1.", least=0.0, value="X"
    )
    top_k: int | None = _option(
        None, "writing", "Write only with so many likeliest tokens.", least=1, most=_LARGEST_COUNT
    )
    top_p: float | None = _option(
        None,
        "writing",
        "Write only with the likeliest tokens that hold this probability.",
        least=0.0,
        most=1,
        value="X",
    )
    min_p: float | None = _option(
        None,
        "writing",
        "Write only with tokens that have this share of the probability of the likeliest.",
        least=0.0,
        most=1,
        value="X",
    )
    repetition_penalty: float | None = _option(
        None,
        "writing",
        "Above 1, tokens that the text has already become less likely while writing.",
        above=0.0,
        value="X",
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
        if self.seeds is not None:
            seed_list(self.seeds)
        check_seed(self.seed)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Options":
        """The options given by name. Raises `SpecificationError` for a name that there is not."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in given:
            if name not in fields:
                raise SpecificationError(nearest(name, fields, "option"))
        return cls(**{name: _checked(fields[name], value) for name, value in given.items()})

    def unusual(self, groups: Collection[str]) -> list[str]:
        """Names of the options of these groups that are not as they are by default."""
        return [
            field.name
            for field in dataclasses.fields(self)
            if field.metadata["group"] in groups and getattr(self, field.name) != field.default
        ]

    @property
    def keeps_best(self) -> bool:
        """Whether what is left of a seed is its best evaluation's, not the last one's."""
        return self.keep_best or self.patience is not None

    @property
    def seed_list(self) -> list[int]:
        """Which seeds, where that is settled."""
        assert self.seeds is not None
        return seed_list(self.seeds)


@dataclasses.dataclass(frozen=True)
class Verb:
    """Which of the options a verb takes, and what they are where it is not told.

    **Arguments:** `groups`: of options; `without`: options of these that it does not take; `usual`:
    what options are by default, where that differs from what `Options` says (`None` leaves it to
    the verb); `texts`: what is said of options, where that differs.
    """

    groups: tuple[str, ...]
    without: tuple[str, ...] = ()
    usual: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def fields(self, group: str | None = None) -> list[dataclasses.Field]:
        """The options that it takes, of one group or of all, as `Options` declares them."""
        groups = self.groups if group is None else (group,)
        return [
            field
            for field in dataclasses.fields(Options)
            if field.metadata["group"] in groups and field.name not in self.without
        ]

    def default(self, field: dataclasses.Field) -> Any:
        """What an option is unless it is given."""
        return self.usual.get(field.name, field.default)

    def text(self, field: dataclasses.Field) -> str:
        """What is said of an option."""
        return self.texts.get(field.name, field.metadata["text"])

    def settled(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every option that the verb takes, by name: as given, or what it is by default.

        Raises `SpecificationError` for a name or a value that the verb does not take.
        """
        fields = {field.name: field for field in self.fields()}
        for name in given:
            if name not in fields:
                raise SpecificationError(nearest(name, fields, "option"))
        found = {}
        for name, field in fields.items():
            value = given.get(name, self.default(field))
            left_open = value is None and self.default(field) is None
            found[name] = None if left_open else _checked(field, value)
        return found

    def described(self) -> str:
        """Every option with its meaning, a line each."""
        lines = []
        for field in self.fields():
            default = self.default(field)
            usual = "" if default in (None, False) else f" (default: {default!r})"
            lines.append(f"- `{field.name}`: {self.text(field).rstrip('.')}{usual}.")
        return "\n".join(lines)


TRAIN = Verb(tuple(group for group in GROUPS if group != "adapting"))
"""The options of `train`."""

_AS_IN_THE_RUN = "by default as in the run."
ADAPT = Verb(
    ("training", "acting", "adapting"),
    without=("seeds", "updates"),
    usual={
        "recipe": DEFAULT_RECIPE,
        "steps": 50_000,
        "batch_size": None,
        "evaluations": 20,
        "episodes": None,
        "seed": None,
        "precision": None,
    },
    texts={
        "steps": "New environment steps in all, warm-up included.",
        "batch_size": f"Rows per gradient step; {_AS_IN_THE_RUN}",
        "episodes": f"Episodes per evaluation and seed; {_AS_IN_THE_RUN}",
        "seed": "Root of all randomness; by default one more than the run's.",
        "precision": "Of the large products in networks while it learns (see `train`); "
        f"{_AS_IN_THE_RUN}",
        "random_steps": "Random steps of `rlpd` and `scratch` before the first update; by default "
        "a tenth of the steps, at most 5,000.",
        "block": "Environment steps between updates, of which there are then as many; by default "
        "1, or 8 where the simulator is not compiled; in `ppo` 2,048, and one update for each.",
    },
)
"""The options of `adapt`."""


def check_seed(seed: int) -> None:
    """Raises `SpecificationError` for a seed that no generator takes."""
    if seed < 0:
        raise SpecificationError(f"seed = {seed}: it must be at least 0")
    if seed > LARGEST_SEED:
        raise SpecificationError(f"seed = {seed}: it must lie between 0 and {LARGEST_SEED}")


def seed_list(seeds: int | Sequence[int]) -> list[int]:
    """Which seeds. Raises `SpecificationError` if there are none or one is named twice."""
    if isinstance(seeds, int) and seeds > MOST_SEEDS:
        raise SpecificationError(f"seeds = {seeds}: at most {MOST_SEEDS:,} are trained at once")
    chosen = list(range(seeds)) if isinstance(seeds, int) else [int(s) for s in seeds]
    if not chosen or len(set(chosen)) != len(chosen) or min(chosen) < 0:
        raise SpecificationError(
            f"seeds = {seeds}: give how many, or a list of different numbers from 0 on"
        )
    for seed in chosen:
        check_seed(seed)
    return chosen


def _checked(field: dataclasses.Field, value: Any) -> Any:
    """The value as plain Python has it, if it is one that the option takes."""
    name, limits = field.name, field.metadata
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, Mapping):
        value = tuple(f"{key}={each}" for key, each in value.items())
    hint = typing.get_type_hints(Options)[name]
    if not json_text.fits(value, hint):
        choices = [c for c in _choices(hint) if isinstance(c, str)]
        if choices and isinstance(value, str):
            raise SpecificationError(nearest(value, choices, name.replace("_", " ")))
        raise SpecificationError(f"{name} = {value!r} must be {_in_words(hint)}")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    if limits["least"] is not None and value < limits["least"]:
        raise SpecificationError(f"{name} = {value}: it must be at least {limits['least']:g}")
    if limits["below"] is not None and not limits["above"] < value < limits["below"]:
        raise SpecificationError(
            f"{name} = {value}: it must lie between {limits['above']:g} and {limits['below']:g}, "
            "and be neither"
        )
    if limits["above"] is not None and not limits["above"] < value < math.inf:
        raise SpecificationError(f"{name} = {value} must be positive, and finite")
    if limits["most"] is not None and value > limits["most"]:
        raise SpecificationError(f"{name} = {value}: it must be at most {limits['most']:,}")
    return value


def _choices(hint: Any) -> list[Any]:
    if typing.get_origin(hint) is Literal:
        return list(typing.get_args(hint))
    return [choice for part in typing.get_args(hint) for choice in _choices(part)]


def _in_words(hint: Any) -> str:
    words = {
        int: "a whole number",
        float: "a number, and finite",
        str: "a text",
        bool: "true or false",
        type(None): "None",
        tuple[int, ...]: "a list of whole numbers",
        tuple[float, ...]: "a list of numbers",
        tuple[str, ...]: "a list of texts",
    }
    if choices := _choices(hint):
        return "one of " + ", ".join(map(str, choices))
    parts = typing.get_args(hint) if hint not in words else (hint,)
    return " or ".join(words[part] for part in parts)
