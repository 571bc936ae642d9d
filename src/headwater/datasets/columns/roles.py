"""Which column of a file plays which part, by its name or by the user's word."""

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from headwater.core.errors import DataError, SpecificationError, nearest
from headwater.datasets.episodes.ends import SIGNALS

Mapping = dict[str, str | list[str]]
"""From a role to the column that plays it, to a family (`obs_*`), or to a list of columns."""
Chunk = dict[str, np.ndarray]
"""Rows of a file: one array per role."""
_TRANSLITERATED = str.maketrans({"€": "EUR", "–": "-", "—": "-", "‘": "'", "’": "'", "−": "-"})
"""What is written in names for characters that Latin-1 lacks."""
ROLES: dict[str, tuple[str, ...]] = {
    "observations": ("observations", "observation", "obs", "states", "state", "observation_state"),
    "actions": ("actions", "action", "acts", "act"),
    "rewards": ("rewards", "reward", "rews", "rew", "next_reward"),
    "terminals": (
        "terminals",
        "terminal",
        "terminations",
        "termination",
        "terminated",
        "terminateds",
        "is_terminal",
        "is_terminated",
        "next_terminal",
        "next_terminated",
        "absorbing",
    ),
    "truncations": (
        "truncations",
        "truncation",
        "truncated",
        "truncateds",
        "is_truncated",
        "next_truncated",
        "next_truncation",
        "timeouts",
        "timeout",
        "timed_out",
        "time_out",
        "time_limit_truncated",
    ),
    "dones": ("dones", "done", "is_done", "next_done", "dones_float"),
    "ends": (
        "is_last",
        "is_last_step",
        "last_step",
        "episode_terminals",
        "episode_ends",
        "episode_end",
        "is_episode_end",
        "end_of_episode",
    ),
    "starts": (
        "is_first",
        "is_first_step",
        "first_step",
        "episode_starts",
        "episode_start",
        "is_episode_start",
        "start_of_episode",
        "is_start",
        "is_init",
    ),
    "continues": (
        "masks",
        "continues",
        "is_continue",
        "nonterminals",
        "nonterminal",
        "non_terminals",
        "non_terminal",
    ),
    "episodes": (
        "episodes",
        "episode",
        "episode_id",
        "episode_ids",
        "episode_index",
        "episode_idx",
        "episode_number",
        "episode_num",
        "episode_no",
        "ep",
        "eps_id",
        "ep_id",
        "trajectories",
        "trajectory",
        "trajectory_id",
        "trajectory_ids",
        "trajectory_index",
        "traj",
        "traj_id",
        "traj_index",
        "traj_idx",
        "rollout_id",
        "demo_id",
    ),
    "steps": (
        "steps",
        "step",
        "step_id",
        "step_index",
        "step_idx",
        "step_number",
        "step_in_episode",
        "episode_step",
        "timesteps",
        "timestep",
        "time_step",
        "frame_index",
        "t",
    ),
    "next_observations": (
        "next_observations",
        "next_observation",
        "next_obs",
        "next_states",
        "next_state",
        "new_observations",
        "new_observation",
        "new_obs",
        "new_states",
        "new_state",
        "observations_next",
        "observation_next",
        "obs_next",
        "next_observation_state",
    ),
    "propensities": (
        "propensities",
        "propensity",
        "propensity_scores",
        "propensity_score",
        "pscores",
        "pscore",
        "p_score",
        "action_probs",
        "action_prob",
        "action_probabilities",
        "action_probability",
        "prob_action",
        "behavior_probs",
        "behavior_prob",
        "behavior_probability",
        "behaviour_probs",
        "behaviour_prob",
        "behaviour_probability",
        "logging_prob",
        "logging_probability",
    ),
    "log_propensities": (
        "log_propensities",
        "log_propensity",
        "action_log_probs",
        "action_log_prob",
        "action_log_probability",
        "action_logps",
        "action_logp",
        "action_logprob",
        "log_probs",
        "log_prob",
        "logprobs",
        "logprob",
        "logp",
        "logp_a",
        "old_log_probs",
        "old_log_prob",
        "behavior_log_probs",
        "behavior_log_prob",
        "behavior_logp",
        "behaviour_log_probs",
        "behaviour_log_prob",
        "behaviour_logp",
    ),
    "action_confidence": (
        "action_confidence",
        "action_confidences",
        "action_known",
        "action_logged",
        "action_observed",
        "action_available",
        "has_action",
    ),
    "unused": (),
}
"""Every role a column can play, and the names by which it is recognised unasked: in lower case,
with `_` for whatever is neither letter nor digit. Columns called `unused` are left alone."""
ANYTHING = ("episodes", "steps")
"""The roles whose columns may hold text as well as numbers."""
_FAMILIES = ("_*", ".*", "[*]", "[ *]", "(*)", "-*", ":*", " *", "/*")
"""How components are numbered behind the name of what they are components of."""
_STEP = "the step within an episode"
_WORD = r"(?:^|_)(?:{})(?:$|_)"
_EPISODE = (
    "episodes?|epis|eps|ep|traj|trajs|trajectory|trajectories|rollouts?|sessions?|visits?|stays?|"
    "admissions?|hadm|icustay|encounters?|runs?|trials?|games?|matches|match|laps?|demos?|"
    "demonstrations?|patients?|subjects?|users?|customers?|participants?|dialogues?|conversations?"
)
_LOOKS: dict[str, re.Pattern[str]] = {
    "whether anything follows": re.compile(
        r"^(?:discounts?|not_?dones?|continues?|cont|(?:not|non)_?terminals?|not_?terminated)$"
    ),
    "the end of an episode": re.compile(
        _WORD.format(
            "dones?|ends?|ended|terminals?|terminat[a-z]*|truncat[a-z]*|timeouts?|time_?out|"
            "timed_out|last|final|absorbing|game_over|finished|discharged?|death|died|dead|success"
        )
    ),
    # Flags of LeRobot are called `next.` too: what has come to an end is asked first.
    "what follows a row": re.compile(
        r"^(?:next|new|following|successor)_(?!actions?|rewards?)|"
        r"_(?:next|prime|tp1)$|^(?:obs|observations?|states?|s)(?:2|_2)$"
    ),
    "the start of an episode": re.compile(_WORD.format("first|starts?|started|begins?|resets?")),
    "the number of an episode": re.compile(
        rf"^(?:{_EPISODE})$|"
        rf"(?:^|_)(?:{_EPISODE})_?(?:ids?|idx|index|indices|numbers?|num|nr|no|name|uuid|key)$"
    ),
    "the probability of the logged action": re.compile(
        _WORD.format(
            "propensit(?:y|ies)|p_?scores?|probs?|probabilit(?:y|ies)|log_?probs?|log_?p|log_?pi|"
            "likelihoods?|log_?likelihoods?|ips"
        )
    ),
    _STEP: re.compile(
        rf"^(?:timestamps?|time|frames?|ticks?)$|^(?:{_EPISODE})_(?:t|time|steps?|ticks?)$"
    ),
}
"""What the name of a column may say of it, where it is none of the usual ones."""


class Reading(NamedTuple):
    """Which columns of a file are read as what.

    **Arguments:** `columns`: those that play each role; `declared`: the roles that the user gave;
    `unused`: the other columns; `looks`: what the names of some of these say that they are.
    """

    columns: dict[str, list[str]]
    declared: tuple[str, ...]
    unused: tuple[str, ...]
    looks: dict[str, str]


def resolve(names: Sequence[str], mapping: Mapping | None) -> Reading:
    """The columns behind every role that is played, in the order of their components.

    Of what says where episodes end, all columns with usual names are found, not just the first.

    **Arguments:** `names`: the columns there are; `mapping`: the user's word, which goes before
    the usual names. Raises `DataError` for a column or a necessary role that is not there and
    `SpecificationError` for a role that does not exist.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"several columns are called '{twice[0]}': give each its own name")
    found: dict[str, list[str]] = {}
    for role, requested in (mapping or {}).items():
        if role not in ROLES:
            raise SpecificationError(nearest(role, ROLES, "role of a column"))
        found[role] = _columns_named(role, requested, names)
    declared = tuple(found)
    left_alone = found.pop("unused", [])
    taken = {name for columns in found.values() for name in columns}
    # A counter may be part of the observation and still say where episodes begin.
    observed = set(found.get("observations", ()))
    names_left = [name for name in names if name not in left_alone]
    plain = {name: _plain(name) for name in names_left if name not in taken}
    shared = {name: _plain(name) for name in names_left if name not in taken - observed}
    for role, synonyms in ROLES.items():
        if role not in found:
            columns = _recognised(role, synonyms, shared if role in SIGNALS else plain)
            if columns:
                found[role] = columns
    if "next_observations" not in found and "observations" in found:
        following = _successors(found["observations"], plain)
        if following:
            found["next_observations"] = following
    roles = ["observations", "actions"]
    # Demonstrations may do without, but a name that only looks like a reward is asked for.
    if any("reward" in name for name in plain.values()):
        roles.append("rewards")
    for role in roles:
        if role not in found:
            raise DataError(
                f"no column is recognised as {role}; the columns are {_listed(names)}: say which "
                f"one it is with columns={{'{role}': 'NAME'}} (a list, or a family such as "
                "'NAME_*', if every component has its own), or as a command with `--column "
                f"{role}=NAME`"
            )
    used = {name for columns in found.values() for name in columns}
    counted = any(role in found for role in ("episodes", "steps", "starts"))
    unused = tuple(name for name in names if name not in used)
    looks = {
        name: what
        for name in unused
        if name not in left_alone
        and (what := _looks_like(name)) is not None
        and not (counted and what == _STEP)
    }
    columns = {role: found[role] for role in ROLES if role in found}
    return Reading(columns, declared, unused, looks)


def _recognised(role: str, synonyms: Sequence[str], plain: dict[str, str]) -> list[str]:
    """The columns of usual names for a role."""
    if role in SIGNALS:
        return [name for synonym in synonyms for name in plain if plain[name] == synonym]
    for synonym in synonyms:
        alone = [name for name in plain if plain[name] == synonym]
        # Whoever spells it exactly as usual is meant.
        alone.sort(key=lambda name: name != synonym)
        if alone:
            return alone[:1]
        if role in ("observations", "actions", "next_observations"):
            for pattern in _FAMILIES:
                family = _family(synonym + pattern, list(plain), re.IGNORECASE)
                if family:
                    return family
    if role in ("observations", "actions", "next_observations"):
        # Objects within an object, of any names.
        for synonym in synonyms:
            prefixes = (synonym + ".", synonym + "/")
            inside = [name for name in plain if name.lower().startswith(prefixes)]
            if inside:
                return inside
    return []


def _successors(observations: list[str], plain: dict[str, str]) -> list[str]:
    """The columns that are called like the components of the observation, and next."""
    for pattern in ("next_{}", "next.{}", "{}_next", "new_{}", "next {}"):
        columns = [pattern.format(name) for name in observations]
        if all(name in plain for name in columns):
            return columns
    return []


def _plain(name: str) -> str:
    """A name in lower case, with `_` for whatever is neither letter nor digit."""
    apart = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return re.sub(r"[^0-9a-z]+", "_", apart.lower()).strip("_")


def _looks_like(name: str) -> str | None:
    plain = _plain(name)
    return next((what for what, pattern in _LOOKS.items() if pattern.search(plain)), None)


def _columns_named(role: str, requested: str | list[str], names: Sequence[str]) -> list[str]:
    if isinstance(requested, str) and "*" in requested:
        family = _family(requested, names)
        if not family:
            raise DataError(
                f"no column matches '{requested}' for {role} ('*' stands for a number); the "
                "columns "
                f"are {_listed(names)}"
            )
        return family
    chosen = []
    for name in [requested] if isinstance(requested, str) else requested:
        there = name if name in names else _respelt(name, names)
        if there is None:
            raise DataError(
                f"the column '{name}' declared for {role} is not there; the columns are "
                f"{_listed(names)}"
            )
        chosen.append(there)
    return chosen


def _respelt(name: str, names: Sequence[str]) -> str | None:
    """The one column whose name is this one as another encoding has to write it, if there is one.

    An accent may be a character of its own; what an encoding lacks is transliterated or replaced by
    a question mark.
    """
    composed = unicodedata.normalize("NFC", name)
    spellings = {composed, unicodedata.normalize("NFKC", composed.translate(_TRANSLITERATED))}
    for encoding in ("ascii", "latin-1", "cp1252"):
        spellings.add(composed.encode(encoding, "replace").decode(encoding))
    found = [other for other in names if unicodedata.normalize("NFC", other) in spellings]
    return found[0] if len(found) == 1 else None


def _family(pattern: str, names: Sequence[str], flags: int = 0) -> list[str]:
    before, _, after = pattern.partition("*")
    expression = re.compile(re.escape(before) + r"([0-9]{1,9})" + re.escape(after), flags)
    matches = [(int(m.group(1)), name) for name in names if (m := expression.fullmatch(name))]
    numbers = sorted(number for number, _ in matches)
    if len(set(numbers)) < len(numbers):
        double = next(n for n, after in itertools.pairwise(numbers) if n == after)
        raise DataError(f"several of the columns '{pattern}' have the number {double}")
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        missing = next(n for n in range(numbers[0], numbers[-1]) if n not in numbers)
        raise DataError(
            f"the columns '{pattern}' are numbered {numbers[0]} to {numbers[-1]} but "
            f"'{before}{missing}{after}' is missing: add it, or list the columns by name"
        )
    return [name for _, name in sorted(matches)]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in list(names)[:30])
    return (shown or "none") + (f" and {len(names) - 30} more" if len(names) > 30 else "")
