"""Logs whose best method can be known: small tasks with exact values, and who acted in them.

Every task is finite, or a continuous one that a formula solves, so that what a learned policy is
worth is computed and not sampled (continuous tasks: many episodes with common randomness).
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from headwater.datasets.dataset import Dataset

ROWS, TINY = 3_000, 24
BEHAVIOURS = ("expert", "medium", "mixed", "random", "narrow")


@dataclasses.dataclass(frozen=True, eq=False)
class Finite:
    """A finite task. `[state, action, state]` and `[state, action]`; states `over` end it."""

    transition: np.ndarray
    reward: np.ndarray
    features: np.ndarray
    initial: np.ndarray
    over: np.ndarray
    horizon: int
    noise: float = 0.0

    def worth(self, policy: np.ndarray) -> float:
        """The expected undiscounted return of action probabilities `[state, action]`."""
        value = np.zeros(len(self.over))
        for _ in range(self.horizon):
            ahead = self.reward + self.transition @ (value * ~self.over)
            value = np.sum(policy * ahead, axis=1)
        return float(self.initial @ value)

    def best(self) -> np.ndarray:
        """A stationary policy that is best for the discount 0.99, as probabilities."""
        value, ahead = np.zeros(len(self.over)), self.reward
        for _ in range(2_000):
            ahead = self.reward + 0.99 * self.transition @ (value * ~self.over)
            value = ahead.max(1)
        return np.eye(ahead.shape[1])[ahead.argmax(1)]

    def act(self, draw: np.random.Generator, policy: Callable, rows: int) -> dict[str, np.ndarray]:
        """Rows of whole episodes, of which the last one is cut; `policy` is asked at each start."""
        columns: dict[str, list] = {n: [] for n in ("s", "a", "r", "n", "terminal", "cut")}
        actions = self.reward.shape[1]
        state, step, chosen = self._start(draw), 0, policy(draw)
        for _ in range(rows):
            action = draw.choice(actions, p=chosen[state])
            after = draw.choice(len(self.over), p=self.transition[state, action])
            over = bool(self.over[after])
            step += 1
            cut = not over and step == self.horizon
            reward = self.reward[state, action] + self.noise * draw.normal()
            for name, value in zip(columns, (state, action, reward, after, over, cut)):
                columns[name].append(value)
            state = after
            if over or cut:
                state, step, chosen = self._start(draw), 0, policy(draw)
        return {name: np.array(values) for name, values in columns.items()}

    def _start(self, draw: np.random.Generator) -> int:
        return int(draw.choice(len(self.initial), p=self.initial))


def _grid(*, cliff: bool, other: bool = False) -> Finite:
    wide, high, slip = (5, 6, 0.2) if other else (6, 5, 0.1)
    moves = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    count = wide * high
    transition = np.zeros((count, 4, count))
    for x in range(wide):
        for y in range(high):
            for action in range(4):
                for way, (dx, dy) in enumerate(moves):
                    chance = slip / 4 + (1 - slip) * float(way == action)
                    to = min(max(x + dx, 0), wide - 1) + wide * min(max(y + dy, 0), high - 1)
                    transition[x + wide * y, action, to] += chance
    over = np.zeros(count, bool)
    goal = wide - 1 if cliff or not other else count - 1
    over[goal] = True
    gain = np.zeros(count)
    gain[goal] = 1.0
    if cliff:
        over[1:goal] = True
        gain[1:goal] = -1.0 if other else -2.0
    reward = transition @ gain - (0.02 if cliff else 0.0)
    x, y = np.arange(count) % wide / (wide - 1), np.arange(count) // wide / (high - 1)
    features = np.stack([x, y, x**2, y**2, np.sin(3 * x), np.sin(3 * y)], 1)
    initial = np.zeros(count)
    initial[0 if cliff else wide * np.arange(high)] = 1.0
    return Finite(transition, reward, features, initial / initial.sum(), over, 40)


def _stock(*, other: bool = False) -> Finite:
    """Orders of 0, 3, 6 or 9 pieces; holding costs 0.1 each, a lost sale 2 (or 0.3 and 1)."""
    holding, lost = (0.3, 1) if other else (0.1, 2)
    count, demands = 30, np.arange(9)
    chances = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1]) / 25
    transition, reward = np.zeros((count, 4, count)), np.zeros((count, 4))
    for stock in range(count):
        for action in range(4):
            held = min(stock + 3 * action, count - 1)
            for demand, chance in zip(demands, chances):
                transition[stock, action, max(held - demand, 0)] += chance
                reward[stock, action] -= chance * (
                    holding * max(held - demand, 0) + lost * max(demand - held, 0)
                )
            reward[stock, action] -= 0.5 * (action > 0)
    level = np.arange(count) / (count - 1)
    features = np.stack([np.sin(k * level) for k in range(1, 7)], 1)
    initial = np.full(count, 1 / count)
    return Finite(transition, reward, features, initial, np.zeros(count, bool), 30)


def _bandit(*, other: bool = False) -> Finite:
    """One decision in one of 30 contexts on a circle, and a noisy reward."""
    count = 31
    angle = 2 * np.pi * np.arange(30) / 30
    transition = np.zeros((count, 4, count))
    transition[:, :, 30] = 1.0
    reward = np.zeros((count, 4))
    level, bend = (-3, 2) if other else (1, 1)
    reward[:30] = level + np.stack([np.cos(bend * angle - k * np.pi / 2) for k in range(4)], 1)
    features = np.zeros((count, 6))
    features[:30] = np.stack([f(k * angle) for k in (1, 2, 3) for f in (np.sin, np.cos)], 1)
    over = np.arange(count) == 30
    initial = np.append(np.full(30, 1 / 30), 0.0)
    return Finite(transition, reward, features, initial, over, 1, noise=0.5 if other else 1.0)


def _short(*, other: bool = False) -> Finite:
    """Five (or three) decisions with rewards near -5 (or 2); where they lead is random."""
    draw = np.random.default_rng(12 if other else 11)
    layers, wide = (3, 10) if other else (5, 6)
    count = layers * wide + 1
    transition, reward = np.zeros((count, 4, count)), np.zeros((count, 4))
    transition[:, :, -1] = 1.0
    for layer in range(layers):
        rows = slice(layer * wide, (layer + 1) * wide)
        reward[rows] = (2 if other else -5) + draw.normal(size=(wide, 4))
        if layer < layers - 1:
            transition[rows] = 0.0
            ahead = draw.dirichlet(np.full(wide, 0.3), size=(wide, 4))
            transition[rows, :, (layer + 1) * wide : (layer + 2) * wide] = ahead
    features = draw.normal(size=(count, 6))
    initial = np.zeros(count)
    initial[:wide] = 1 / wide
    return Finite(transition, reward, features, initial, np.arange(count) == count - 1, layers, 0.2)


def _long(*, other: bool = False) -> Finite:
    """A ring of 30 places with a costly distance to one of them; 200 (or 100) steps, slips."""
    count = 30
    transition = np.zeros((count, 4, count))
    for place in range(count):
        for action, move in enumerate((-1, 0, 1, 2)):
            for slip, chance in ((0, 0.7), (-1, 0.2), (1, 0.1)):
                transition[place, action, (place + move + slip) % count] += chance
    far = np.minimum(np.arange(count), count - np.arange(count)) / 15
    reward = np.repeat(-far[:, None], 4, 1) - np.array([0.05, 0.0, 0.05, 0.1])
    angle = 2 * np.pi * np.arange(count) / count
    features = np.stack([f(k * angle) for k in (1, 2, 3) for f in (np.sin, np.cos)], 1)
    return Finite(
        transition,
        reward * (0.1 if other else 1.0),
        features,
        np.full(count, 1 / count),
        np.zeros(count, bool),
        100 if other else 200,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Continuous:
    """A task with a known best action: `steps` of pushing a point to the origin, or one dose."""

    steps: int
    other: bool = False

    def start(self, draw: np.random.Generator, count: int) -> np.ndarray:
        """Observations `[episode, 4]`."""
        return draw.uniform(-1, 1, (count, 4))

    def step(
        self, seen: np.ndarray, action: np.ndarray, draw: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is seen next, and rewards."""
        if self.steps == 1:
            wrong = np.sum((action - self.best(seen)) ** 2, 1)
            return seen, 1 - wrong + 0.3 * draw.normal(size=len(seen))
        place, speed = seen[:, :2], seen[:, 2:]
        speed = np.clip(0.9 * speed + 0.3 * action + 0.02 * draw.normal(size=speed.shape), -1, 1)
        place = np.clip(place + 0.3 * speed, -2, 2)
        return np.concatenate([place, speed], 1), -np.sum(place**2, 1) - 0.05 * np.sum(action**2, 1)

    def best(self, seen: np.ndarray) -> np.ndarray:
        """The best action, or nearly so."""
        if self.steps == 1 and self.other:
            return np.clip(np.stack([np.abs(seen[:, 0]) - 0.5, seen[:, 1] * seen[:, 3]], 1), -1, 1)
        if self.steps == 1:
            return np.clip(np.stack([seen[:, 0] * seen[:, 1], np.sin(2 * seen[:, 2])], 1), -1, 1)
        return np.clip(-1.5 * seen[:, :2] - 1.5 * seen[:, 2:], -1, 1)

    def worth(self, policy: Callable[[np.ndarray], np.ndarray], episodes: int = 500) -> float:
        """The mean return of a function from observations to actions."""
        draw = np.random.default_rng(99)
        seen, total = self.start(draw, episodes), 0.0
        for _ in range(self.steps):
            seen, reward = self.step(seen, policy(seen), draw)
            total = total + reward
        return float(np.mean(total))

    def noisy(self, kind: str, draw: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        """The policy of a behaviour, for a batch of episodes."""

        def act(seen: np.ndarray) -> np.ndarray:
            best = self.best(seen)
            anything = draw.uniform(-1, 1, best.shape)
            noise = draw.normal(size=best.shape)
            if kind == "random":
                return anything
            if kind == "mixed":
                # One episode in five, by its place in the batch.
                able = (np.arange(len(seen)) % 5 == 0)[:, None]
                return np.where(able, np.clip(best + 0.1 * noise, -1, 1), anything)
            if kind == "narrow":
                return np.clip(0.4 * best + 0.2 + 0.02 * noise, -1, 1)
            spread = 0.1 if kind == "expert" else 0.3
            drawn = best if kind == "expert" else 0.4 * best + 0.2
            return np.clip(drawn + spread * noise, -1, 1)

        return act


def tasks(other: bool = False) -> dict[str, Any]:
    """The tasks by name; `other` ones of the same kinds, on which no rule was made."""
    return {
        "grid": _grid(cliff=False, other=other),
        "stock": _stock(other=other),
        "bandit": _bandit(other=other),
        "short": _short(other=other),
        "long": _long(other=other),
        "cliff": _grid(cliff=True, other=other),
        "push": Continuous(10 if other else 20),
        "dose": Continuous(1, other),
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Log:
    """A log: its `data`, the task, and what is known of it.

    **Arguments:** `worthless`: nothing can be learned from it, by its making; `logged`: the worth
    of the behaviour; `random`, `best`: of the scale.
    """

    name: str
    task: Any
    data: Dataset
    worthless: bool
    logged: float
    random: float
    best: float


def all_logs(seed: int = 0) -> Iterator[Log]:
    """Every log, one after the other. Another `seed` than 0: of other tasks of the same kinds."""
    known = tasks(other=seed != 0)
    for number, (name, task) in enumerate(known.items()):
        for place, kind in enumerate(BEHAVIOURS):
            draw = np.random.default_rng([seed, number, place])
            if isinstance(task, Finite):
                yield _finite(f"{name}-{kind}", task, kind, draw, ROWS)
            else:
                yield _continuous(f"{name}-{kind}", task, kind, draw, ROWS)
    for name, kind, change in (
        ("grid", "expert", "no-rewards"),
        ("short", "medium", "no-rewards"),
        ("stock", "random", "no-rewards"),
        ("stock", "random", "equal"),
        ("grid", "random", "zero"),
        ("stock", "random", "tiny"),
        ("long", "random", "tiny"),
    ):
        draw = np.random.default_rng([seed, 100, len(name), len(change)])
        rows = TINY if change == "tiny" else ROWS
        log = _finite(f"{name}-{kind}-{change}", known[name], kind, draw, rows)
        data = log.data
        if change == "no-rewards":
            data = dataclasses.replace(
                data,
                rewards=np.zeros_like(data.rewards),
                metadata={**data.metadata, "missing": ["rewards"]},
            )
        elif change in ("equal", "zero"):
            value = np.float32(change == "equal")
            data = dataclasses.replace(data, rewards=np.full_like(data.rewards, value))
        worthless = kind == "random"
        yield dataclasses.replace(log, data=data, worthless=worthless)


def _finite(name: str, task: Finite, kind: str, draw: np.random.Generator, rows: int) -> Log:
    best, states, actions = task.best(), len(task.over), task.reward.shape[1]
    even = np.full((states, actions), 1 / actions)
    fixed = np.random.default_rng(3)
    wrong = np.eye(actions)[(best.argmax(1) + fixed.integers(1, actions, states)) % actions]
    half = np.where(fixed.random(states)[:, None] < 0.5, best, wrong)
    able = 0.95 * best + 0.05 * even
    policies = {
        "expert": (able, able, 1.0),
        "medium": (0.5 * best + 0.5 * even,) * 2 + (1.0,),
        "mixed": (able, even, 0.2),
        "random": (even, even, 1.0),
        "narrow": (0.98 * half + 0.02 * even,) * 2 + (1.0,),
    }
    first, second, share = policies[kind]
    rolled = task.act(draw, lambda d: first if d.random() < share else second, rows)
    data = Dataset.from_arrays(
        task.features[rolled["s"]],
        rolled["a"],
        rolled["r"],
        rolled["terminal"],
        rolled["cut"],
        task.features[rolled["n"]],
        discrete=True,
        action_count=actions,
        metadata={"name": name},
    )
    logged = share * task.worth(first) + (1 - share) * task.worth(second)
    return Log(name, task, data, False, logged, task.worth(even), task.worth(best))


def _continuous(
    name: str, task: Continuous, kind: str, draw: np.random.Generator, rows: int
) -> Log:
    episodes = rows // task.steps
    policy = task.noisy(kind, draw)
    seen = task.start(draw, episodes)
    columns: dict[str, list] = {n: [] for n in ("o", "a", "r", "n")}
    for _ in range(task.steps):
        action = policy(seen)
        after, reward = task.step(seen, action, draw)
        for column, value in zip(columns.values(), (seen, action, reward, after)):
            column.append(value)
        seen = after
    # One episode after the other.
    flat = {k: np.stack(v, 1).reshape(rows, *np.shape(v[0])[1:]) for k, v in columns.items()}
    last = np.arange(rows) % task.steps == task.steps - 1
    data = Dataset.from_arrays(
        flat["o"],
        flat["a"],
        flat["r"],
        last if task.steps == 1 else np.zeros(rows, bool),
        np.zeros(rows, bool) if task.steps == 1 else last,
        flat["n"],
        discrete=False,
        metadata={"name": name},
    )
    chance = np.random.default_rng(5)
    anything = task.worth(lambda seen: chance.uniform(-1, 1, (len(seen), 2)))
    logged = task.worth(task.noisy(kind, np.random.default_rng(6)))
    return Log(name, task, data, False, logged, anything, task.worth(task.best))
