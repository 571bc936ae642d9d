"""Which methods to try on a log, with settings and reasons; or that nothing can be learned from it.

What is measured (`measures.py`) decides by `RULES`, which are data: conditions on measures, and
learners in the order in which they are to be tried. Whether a learner can be trained on a log is
asked of the method itself. How often this is right was measured on 47 logs whose best method is
known: see `docs/advise.md`.
"""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from headwater.analysis.describe import serious_notes
from headwater.analysis.measures import Measures, measure
from headwater.core.catalogue import build_method, learns_from
from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.method import AbstractMethod
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.datasets.dataset import Dataset
from headwater.datasets.reading import dropped_sentence

MOST = 3
"""Recommendations at most."""
HIDDEN = 0.3
"""Measures of what observations hide from which on it is told. The recorded logs, whose
observations are states, come to 0.21 at most, and tasks without their velocities to 0.9 and more
(`tests/analysis/test_advice.py`)."""


class Condition(NamedTuple):
    """A measure that has to be `at_least`, or else `below`, a bound.

    **Arguments:** `name`: of a field of `Measures`; `at_least`, `below`: bounds, or `None`.
    """

    name: str
    at_least: float | None = None
    below: float | None = None

    def holds(self, measures: Measures) -> bool:
        """Whether it is so."""
        value = getattr(measures, self.name)
        above = self.at_least is None or value >= self.at_least
        return above and (self.below is None or value < self.below)


class Learner(NamedTuple):
    """A method with what is to be set, and why.

    **Arguments:** `method`: its name; `reason`: in words, in which `{measure}` stands for a number;
    `settings`: hyper-parameters that differ from the default; `top`: the share of the best episodes
    to learn from, if not all; `claims`: names of claims that bear on it.
    """

    method: str
    reason: str
    settings: Mapping[str, Any] = MappingProxyType({})
    top: float | None = None
    claims: tuple[str, ...] = ()


class Rule(NamedTuple):
    """What to try where all conditions hold.

    **Arguments:** `finding`: what the log shows, in words with `{measure}`; `when`; `learners`: in
    the order of preference, of which those are taken that can be trained on the log.
    """

    finding: str
    when: tuple[Condition, ...]
    learners: tuple[Learner, ...]


WORTHLESS: tuple[tuple[str, tuple[Condition, ...]], ...] = (
    (
        "{rows:,} rows are too few for networks: there are {rows_per_number:.1f} for each "
        "component of observations and actions, and ten is little; log more, or act by a rule of "
        "thumb",
        (Condition("rows_per_number", below=10.0),),
    ),
    (
        "there are no rewards, and the actions are as if drawn at random (agreement "
        "{agreement:.2f}): there is nothing to imitate and nothing to prefer; log the rewards, or "
        "demonstrations of somebody who can do it",
        (Condition("missing_rewards", at_least=1), Condition("agreement", below=0.1)),
    ),
    (
        "all rewards are alike and the actions are as if drawn at random (agreement "
        "{agreement:.2f}): no action can be told from another; log until rewards differ",
        (Condition("rewarded", below=1), Condition("agreement", below=0.1)),
    ),
)
"""Why a log is not worth learning from, and when."""

_QUALITY = "quality-and-coverage-tell-the-method"
_TASKS = "oer-keeps-what-its-policy-visits"
_CLONING = "cloning-error-falls-like-one-over-demonstrations"
_WEIGHTS = ("trajectory-weighting-lifts-iql", "trajectory-weighting-does-no-harm")

_BC = Learner(
    "BC",
    "imitates what was logged; with actions that agree to {agreement:.2f} that is well defined, "
    "and no value can mislead it",
    claims=(_QUALITY,),
)
_TENTH = Learner(
    "BC",
    "imitates the best tenth of the episodes, whose actions agree to {best_agreement:.2f} where "
    "those of the whole log agree to {agreement:.2f}: somebody able is among those who acted",
    top=0.1,
    claims=_WEIGHTS,
)
_BASE = Learner("BC", "imitates the log: what the others have to beat")
_IQL = Learner(
    "IQL",
    "asks about logged actions only, so that it improves on the log without trusting values of "
    "actions that nobody tried",
    claims=("trajectory-weighting-lifts-iql",),
)
_NEAR = Learner(
    "DiscreteCQL",
    "with a weak penalty: keeps values of what was not logged low, so that it clones where nothing "
    "better is seen, and prefers where rewards say so",
    settings={"conservative_weight": 0.1},
    claims=(_QUALITY,),
)
_WEAK = Learner(
    "DiscreteCQL",
    "with a weak penalty: keeps values of actions that were not logged low, but not too low where "
    "{support:.0%} of them were tried near an observation",
    settings={"conservative_weight": 0.1},
    claims=(_QUALITY,),
)
_FREE = Learner(
    "DiscreteCQL",
    "without its penalty, which is double Q-learning: near each observation {support:.0%} of the "
    "actions were tried, so that values need no caution",
    settings={"conservative_weight": 0.0},
    claims=(_QUALITY,),
)
_TD3 = Learner(
    "TD3BC",
    "climbs a value of continuous actions, and is held near the logged ones",
    claims=("trajectory-weighting-lifts-td3bc",),
)

RULES: tuple[Rule, ...] = (
    Rule(
        "nothing can be preferred by rewards, but the actions are not random",
        (Condition("rewarded", below=1),),
        (_BC._replace(claims=(_CLONING,)),),
    ),
    Rule(
        "whoever acted did nearly always the same (agreement {agreement:.2f}), and few other "
        "actions were tried ({support:.0%}): expect little more than the log itself, and if it is "
        "not good, new samples",
        (Condition("agreement", at_least=0.75),),
        (_NEAR, _BC, _IQL, _TD3),
    ),
    Rule(
        "rewards are rare ({zero_share:.0%} are zero), so that they have to be carried far along "
        "logged steps",
        (Condition("zero_share", at_least=0.9), Condition("single_steps", below=1)),
        (_IQL, _WEAK, _TD3, _BASE),
    ),
    Rule(
        "the best episodes were made by somebody else than the rest: actions agree to "
        "{best_agreement:.2f} there, and to {agreement:.2f} in all",
        (
            Condition("best_agreement", at_least=0.75),
            Condition("episodes", at_least=50),
            Condition("single_steps", below=1),
        ),
        (_WEAK, _TENTH, _IQL, _TD3),
    ),
    Rule(
        "each episode is one decision, and the action explains {effect:.0%} of the variance of the "
        "reward among observations alike",
        (Condition("single_steps", at_least=1),),
        (_WEAK, _TD3, _IQL, _BASE),
    ),
    Rule(
        "everything was tried everywhere (support {support:.0%}, agreement {agreement:.2f})",
        (Condition("agreement", below=0.1), Condition("support", at_least=0.9)),
        (_FREE, _WEAK, _IQL, _TD3),
    ),
    Rule(
        "actions are varied ({support:.0%} were tried near an observation), and rewards tell them "
        "apart",
        (),
        (_WEAK, _IQL, _TD3, _BASE),
    ),
)
"""What to try, by the first rule whose conditions hold; the last one has none."""


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """A method to try.

    **Arguments:** `method`: its name; `settings`: of the method, `top`: share of the best episodes
    to learn from, where these differ from the usual; `reason`: in words; `claims`: names of claims
    that bear on it; `papers`: keys of papers in the bibliography.
    """

    method: str
    settings: dict[str, Any]
    top: float | None
    reason: str
    claims: tuple[str, ...]
    papers: tuple[str, ...]

    @property
    def name(self) -> str:
        """How it is told from others."""
        shown = [f"{name}={value}" for name, value in self.settings.items()]
        shown += [] if self.top is None else [f"top={self.top:g}"]
        return self.method + (f" ({', '.join(shown)})" if shown else "")

    def command(
        self,
        data: str,
        reading: Mapping[str, Any] = MappingProxyType({}),
        then: Sequence[str] = (),
    ) -> str:
        """The command that trains it on `data`, read with these options of `headwater.load`.

        **Arguments:** `then`: the logs of the tasks that follow.
        """
        words = [f"headwater train {self.method} --data {shlex.quote(data)}"]
        words += [" ".join(["--then", *map(shlex.quote, then)])] if then else []
        for name, value in reading.items():
            if name == "columns":
                for role, names in value.items():
                    joined = names if isinstance(names, str) else ",".join(names)
                    words.append(f"--column {shlex.quote(f'{role}={joined}')}")
                continue
            given = value if isinstance(value, list) else [] if value is True else [value]
            words.append(" ".join([f"--{name.replace('_', '-')}", *map(str, given)]))
        words += [f"--set {name}={value}" for name, value in self.settings.items()]
        words += [] if self.top is None else [f"--top {self.top:g}"]
        return " ".join(words)


@dataclasses.dataclass(frozen=True)
class Advice:
    """What to do with a log.

    **Arguments:** `measures`; `worthless`: why it is not worth learning from, empty if it is;
    `finding`: what decided; `recommendations`: in the order in which to try them; `notes`: what
    makes the log doubtful, and what else it has to offer.
    """

    measures: Measures
    worthless: tuple[str, ...]
    finding: str
    recommendations: tuple[Recommendation, ...]
    notes: tuple[str, ...]


def advise_on(dataset: Dataset) -> Advice:
    """What to do with `dataset`, by what it shows alone."""
    if not dataset.known_actions.all():
        return _infer_first(dataset)
    measures = measure(dataset)
    notes = (*serious_notes(dataset), *_notes(measures))
    advice = advise_by(measures, dataset.spaces, notes=notes)
    if dataset.metadata.get("dropped_reward_rows") and not measures.rewarded:
        # The log has rewards, and how it was read lost them.
        lost = dropped_sentence(dataset.metadata)
        reason = (
            f"all rewards that tell anything were lost in reading: {lost}; if the process ended "
            "there, say episodes_end='terminal' (`--episodes-end terminal`), else give "
            "next_observations, and ask again"
        )
        return dataclasses.replace(advice, worthless=(reason,), finding=reason, recommendations=())
    return advice


def advise_on_tasks(datasets: Sequence[Dataset]) -> Advice:
    """What to do with logs of several tasks that come one after the other.

    The measures are those of the last one. Raises `SpecificationError`, naming the task, if their
    spaces differ.
    """
    each = [advise_on(dataset) for dataset in datasets]
    last = datasets[-1]
    for number, dataset in enumerate(datasets, 1):
        reason = datasets[0].spaces.mismatch(dataset.spaces, "in task 1", f"in task {number}")
        if reason is not None:
            raise SpecificationError(f"task {number} does not fit task 1: {reason}")
    notes = []
    for number, advice in enumerate(each, 1):
        names = [found.name for found in advice.recommendations[:1]]
        alone = "".join(f"; try {name} first" for name in names)
        notes.append(f"task {number} by itself: {advice.finding}{alone}")
        notes += [f"task {number}: {note}" for note in advice.notes]
    method = build_method("OER", {"num_tasks": len(datasets)})
    doubtful = [number for number, advice in enumerate(each, 1) if advice.worthless]
    if doubtful:
        reason = f"the log of task {doubtful[0]} is not worth learning from"
        return Advice(each[-1].measures, (reason,), reason, (), tuple(notes))
    fits = all(advice.measures.rewarded for advice in each) and _fits(method, last.spaces, True)
    finding = f"{len(datasets)} tasks that come one after the other"
    if not fits:
        finding += ", for which there is no method here: OER needs rewards and continuous actions"
        return Advice(each[-1].measures, (), finding, (), tuple(notes))
    reason = (
        "learns each task from its log, and keeps a few rows where its policy leads, by which it "
        "does not forget the tasks before"
    )
    found = Recommendation(
        "OER", {"num_tasks": len(datasets)}, None, reason, (_TASKS,), (method.info.paper,)
    )
    return Advice(each[-1].measures, (), finding, (found,), tuple(notes))


def _infer_first(dataset: Dataset) -> Advice:
    """What to do with a log of which rows lack actions, by what the other rows show."""
    known = dataset.known_actions
    missing = int(np.count_nonzero(~known))
    lacking = f"{missing:,} of {dataset.size:,} rows have no action"
    if not known.any():
        reason = (
            "no row has an action: label it with a run of InverseDynamics that learned from a log "
            "of the same task that has some (`headwater data label`), and ask again"
        )
        return Advice(measure(dataset), (reason,), reason, (), tuple(serious_notes(dataset)))
    advice = advise_on(dataset.select_rows(known))
    notes = (*serious_notes(dataset), *_notes(advice.measures))
    if advice.worthless:
        return dataclasses.replace(advice, notes=notes)
    first = Recommendation(
        "InverseDynamics",
        {},
        None,
        f"{lacking}, which it infers from the observations around them, as it learned from those "
        "that have one; then `headwater data label DATA LABELLED --run RUN` (hw.label) writes a "
        "log that what follows here learns from",
        ("inferred-actions-nearly-replace-logged-ones",),
        (build_method("InverseDynamics").info.paper,),
    )
    return dataclasses.replace(
        advice,
        finding=f"{lacking}; of those that have one: {advice.finding}",
        recommendations=(first, *advice.recommendations[: MOST - 1]),
        notes=notes,
    )


def advise_by(measures: Measures, spaces: Spaces, *, notes: Sequence[str] = ()) -> Advice:
    """What to do with a log that shows these `measures`.

    **Arguments:** `spaces`: of the log, which say what methods serve; `notes`: to be told as well.
    """
    numbers = measures.to_json()
    worthless = tuple(
        text.format(**numbers)
        for text, when in WORTHLESS
        if all(condition.holds(measures) for condition in when)
    )
    rule = next(rule for rule in RULES if all(c.holds(measures) for c in rule.when))
    found: list[Recommendation] = []
    for learner in () if worthless else rule.learners:
        method = build_method(learner.method, dict(learner.settings))
        if len(found) < MOST and _fits(method, spaces, bool(measures.rewarded)):
            found.append(
                Recommendation(
                    learner.method,
                    dict(learner.settings),
                    learner.top,
                    learner.reason.format(**numbers),
                    learner.claims,
                    (method.info.paper,),
                )
            )
    return Advice(
        measures,
        worthless,
        worthless[0] if worthless else rule.finding.format(**numbers),
        tuple(found),
        tuple(notes),
    )


def _fits(method: AbstractMethod, spaces: Spaces, rewarded: bool) -> bool:
    """Whether a method can be trained on a log, by what it declares and what it begins with."""
    cls = type(method)
    if learns_from(cls)[1] is not Transitions or cls.feed is not Feed.STORED:
        return False
    if method.info.rewards and not rewarded:
        return False
    try:
        eqx.filter_eval_shape(method.init, spaces, key=jax.random.key(0))
    except SpecificationError:
        return False
    return True


def _notes(measures: Measures) -> list[str]:
    notes = []
    if measures.propensities:
        notes.append(
            "a column holds, or looks like, probabilities of the logged actions: with it, policies "
            "can be judged from the log by importance sampling"
        )
    if measures.episodes < 20 and not measures.single_steps:
        notes.append(
            f"{measures.episodes:,} episodes say little of how good the behaviour was: whatever "
            "is compared by their returns is uncertain"
        )
    if measures.missing_rewards:
        notes.append(
            "there are no rewards: if somebody can tell which of two pieces of it is better, "
            "`headwater data compare` asks, `PreferenceReward` learns a reward from the answers, "
            "and `headwater data label` writes a log that has it"
        )
    if measures.hidden >= HIDDEN:
        notes.append(
            f"the step before tells {measures.hidden:.0%} of a change that an observation and its "
            "action leave open: observations hide a part of the state, such as a velocity. Log it, "
            "or lay out the last observations as one (`with_history` of "
            "headwater.datasets.transform), which any method learns from; `HistoryCQL` reads them "
            "one by one, for discrete actions"
        )
    varied = measures.agreement < 0.1 and measures.support >= 0.9
    if varied and measures.rewarded and not measures.single_steps:
        notes.append(
            "everything was tried everywhere, so that a model of the process can be learned from "
            "it: MOPO and RAVL do so first, and take longer (RAVL serves continuous actions only)"
        )
    return notes
