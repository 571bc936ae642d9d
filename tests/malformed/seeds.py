"""A small valid example of everything that Headwater reads, to be damaged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from headwater.datasets.dataset import Dataset

ROWS = 40


def columns() -> dict[str, np.ndarray]:
    """Four episodes of ten steps, the first two of which end by themselves."""
    draw = np.random.default_rng(0)
    terminals = np.zeros(ROWS, bool)
    terminals[[9, 19]] = True
    observations = draw.normal(size=(ROWS, 3)).astype(np.float32)
    return {
        "observations": observations,
        "actions": draw.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
        "rewards": draw.normal(size=ROWS).astype(np.float32),
        "terminals": terminals,
        "truncations": (np.arange(ROWS) % 10 == 9) & ~terminals,
        "next_observations": np.roll(observations, -1, axis=0),
    }


def dataset() -> Dataset:
    """The same as a dataset."""
    metadata = {"name": "seed", "environment": "pendulum", "reference_returns": [0.0, 1.0]}
    return Dataset.from_arrays(**columns(), horizon=20, metadata=metadata)


def npz(folder: Path) -> Path:
    """An archive."""
    np.savez(folder / "log.npz", **columns(), horizon=np.asarray("20"))  # pyright: ignore
    return folder / "log.npz"


def npz_compressed(folder: Path) -> Path:
    """An archive with compressed members."""
    np.savez_compressed(folder / "log.npz", **columns())  # pyright: ignore
    return folder / "log.npz"


def hdf5(folder: Path) -> Path:
    """D4RL's layout."""
    from headwater.datasets.write import write

    return write(dataset(), folder / "log.hdf5")


def hdf5_compressed(folder: Path) -> Path:
    """D4RL's layout in compressed chunks, as the published files are."""
    import h5py

    with h5py.File(folder / "log.hdf5", "w") as file:
        for name, array in columns().items():
            name = {"truncations": "timeouts"}.get(name, name)
            file.create_dataset(name, data=array, chunks=True, compression="gzip", shuffle=True)
        file["metadata/algorithm"] = "SAC"
    return folder / "log.hdf5"


def _following() -> Dataset:
    """Minari holds no next observations but those that follow."""
    from headwater.datasets.dataset import Dataset

    given = columns()
    del given["next_observations"]
    return Dataset.from_arrays(**given, metadata={"name": "seed", "environment": "pendulum"})


def _minari(folder: Path, kind: str) -> Path:
    from headwater.datasets.write import write

    return write(_following(), folder / "task-v0", kind)


def minari(folder: Path) -> Path:
    """Minari in HDF5."""
    return _minari(folder, "minari")


def minari_arrow(folder: Path) -> Path:
    """Minari in Arrow."""
    return _minari(folder, "minari-arrow")


def minari_parquet(folder: Path) -> Path:
    """Minari in Parquet."""
    return _minari(folder, "minari-parquet")


def _table(folder: Path, name: str) -> Path:
    from headwater.datasets.write import write

    return write(dataset(), folder / name)


def parquet(folder: Path) -> Path:
    """A table as Headwater writes it."""
    return _table(folder, "log.parquet")


def arrow(folder: Path) -> Path:
    """A table in Arrow's own format."""
    return _table(folder, "log.arrow")


def declared(folder: Path) -> Path:
    """A table with columns of its own names, and the file that declares them."""
    import pyarrow
    import pyarrow.parquet

    given = columns()
    named = {f"sensor{i}": given["observations"][:, i] for i in range(3)}
    named |= {f"motor{i}": given["actions"][:, i] for i in range(2)}
    named |= {"gain": given["rewards"], "over": given["terminals"]}
    named |= {"visit": np.arange(ROWS) // 10}
    pyarrow.parquet.write_table(pyarrow.table(named), folder / "log.parquet")
    (folder / "log.columns.toml").write_text(
        'action_low = -1.0\naction_high = 1.0\n[columns]\nobservations = "sensor*"\n'
        'actions = "motor*"\nrewards = "gain"\nterminals = "over"\nepisodes = "visit"\n'
    )
    return folder / "log.parquet"


def csv(folder: Path) -> Path:
    """A text table, with a declaration in JSON."""
    given = columns()
    lines = ["observation_0,observation_1,observation_2,action_0,action_1,reward,done"]
    for i in range(ROWS):
        numbers = [*given["observations"][i], *given["actions"][i], given["rewards"][i]]
        lines.append(",".join(f"{x:.6f}" for x in numbers) + f",{int(given['terminals'][i])}")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    (folder / "log.columns.json").write_text(json.dumps({"dones": "terminal"}))
    return folder / "log.csv"


def text_dialect(folder: Path) -> Path:
    """A compressed text table with semicolons, decimal commas and Windows' letters."""
    import gzip

    plain = csv(folder)
    text = plain.read_text().replace(",", ";").replace(".", ",").replace("reward", "Prämie")
    plain.unlink()
    (folder / "log.columns.json").write_text(
        json.dumps({"dones": "terminal", "columns": {"rewards": "Prämie"}})
    )
    (folder / "log.csv.gz").write_bytes(gzip.compress(text.encode("cp1252"), mtime=0))
    return folder / "log.csv.gz"


def parquet_files(folder: Path) -> Path:
    """A directory of tables."""
    import pyarrow
    import pyarrow.parquet

    (folder / "log").mkdir()
    for part in range(2):
        rows = slice(20 * part, 20 * part + 20)
        given = {name: list(values[rows]) for name, values in columns().items()}
        given["episode_index"] = list(np.arange(ROWS)[rows] // 10)
        pyarrow.parquet.write_table(pyarrow.table(given), folder / "log" / f"{part}.parquet")
    return folder / "log"


def npz_padded(folder: Path) -> Path:
    """Arrays with an axis of episodes."""
    given = {name: values.reshape(4, 10, *values.shape[1:]) for name, values in columns().items()}
    np.savez(folder / "log.npz", **given, lengths=np.array([10, 10, 10, 7]))  # pyright: ignore
    return folder / "log.npz"


def hdf5_numbered(folder: Path) -> Path:
    """d3rlpy's second layout."""
    import h5py

    given = columns()
    with h5py.File(folder / "log.h5", "w") as file:
        file["num_episodes"], file["version"] = 4, "2.1"
        for episode in range(4):
            for name in ("observations", "actions", "rewards"):
                file[f"{name}_{episode}"] = given[name][10 * episode : 10 * episode + 10]
            file[f"terminated_{episode}"] = episode < 2
    return folder / "log.h5"


def hdf5_groups(folder: Path) -> Path:
    """robomimic's layout."""
    import h5py

    given = columns()
    with h5py.File(folder / "log.hdf5", "w") as file:
        for episode in range(4):
            group = file.create_group(f"data/demo_{episode}")
            rows = slice(10 * episode, 10 * episode + 10)
            group["obs/a"], group["obs/b"] = given["observations"][rows], given["rewards"][rows]
            group["actions"], group["rewards"] = given["actions"][rows], given["rewards"][rows]
            group["dones"] = given["terminals"][rows]
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift"})
    return folder / "log.hdf5"


def column_directory(folder: Path) -> Path:
    """Headwater's own format."""
    from headwater.datasets.write import write

    return write(dataset(), folder / "log", "columns")


_made: dict[str, Path] = {}


def _once(name: str, folder: Path, make: Callable[[Path], Path]) -> Path:
    """What takes seconds to make is made once for each process and copied."""
    import tempfile

    if name not in _made or not _made[name].exists():
        _made[name] = make(Path(tempfile.mkdtemp(prefix="headwater-seed-")))
    shutil.copytree(_made[name], folder / name)
    return folder / name


def run(folder: Path) -> Path:
    """A finished run of IQL, evaluated twice."""

    def make(place: Path) -> Path:
        from headwater.api.train import train
        from headwater.methods.control.offline.iql import IQL

        how = {"updates": 4, "seeds": 2, "batch_size": 8, "evaluations": 1, "episodes": 1}
        given = columns()
        data = Dataset.from_arrays(
            given["observations"], given["actions"][:, :1], given["rewards"], given["terminals"],
            given["truncations"], action_low=-2, action_high=2,
        )  # fmt: skip
        method = IQL(hidden_sizes=(4,))
        return Path(
            train(method, data, env="pendulum", **how, out=place / "run", progress=False).path
        )

    return _once("run", folder, make)


def model(folder: Path) -> Path:
    """A language model with its tokenizer and a chat template."""

    def make(place: Path) -> Path:
        import jax

        from headwater.networks.decoders.architecture import Architecture
        from headwater.networks.decoders.decoder import Decoder
        from headwater.networks.hugging_face import write_decoder
        from headwater.texts.tokenizers import ByteTokenizer

        shape = Architecture(259, 16, width=8, layers=1, heads=2, hidden=8, tied=True)
        write_decoder(Decoder(shape, key=jax.random.key(0)), place / "model", end=257)
        ByteTokenizer().write(place / "model")
        (place / "model" / "chat_template.jinja").write_text(
            "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
        )
        return place / "model"

    return _once("model", folder, make)


def reward_run(folder: Path) -> Path:
    """A finished run of a reward model, with the model that it began with."""

    def make(place: Path) -> Path:
        from headwater.api.train import train

        base, pairs = model(place), comparisons(place)
        how = {"updates": 2, "batch_size": 2, "progress": False}
        train("RewardModel", pairs, model=base, out=place / "reward", **how)
        return place / "reward"

    return _once("reward", folder, make)


def _lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def completions(folder: Path) -> Path:
    """Prompts with completions and their rewards."""
    rows = [{"prompt": f"{a}+1=", "completion": f"{a + 1}", "reward": a / 2} for a in range(8)]
    return _lines(folder / "sums.jsonl", rows)


def conversations(folder: Path) -> Path:
    """Conversations."""
    turn = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    return _lines(folder / "talks.jsonl", [{"messages": turn * k} for k in (1, 2, 3)])


def comparisons(folder: Path) -> Path:
    """Pairs of responses."""
    rows = [{"prompt": f"{a}?", "chosen": "yes", "rejected": "no"} for a in range(8)]
    return _lines(folder / "pairs.jsonl", rows)


def completions_parquet(folder: Path) -> Path:
    """Prompts with completions as a table."""
    import pyarrow
    import pyarrow.parquet

    given = {"prompt": ["a", "b"] * 8, "completion": ["c", "d"] * 8, "score": [0.5, 1.0] * 8}
    pyarrow.parquet.write_table(pyarrow.table(given), folder / "sums.parquet")
    return folder / "sums.parquet"


def book(folder: Path) -> Path:
    """One long text."""
    (folder / "book.txt").write_text("the cat sat on the mät. " * 30, encoding="utf-8")
    return folder / "book.txt"


def process(folder: Path) -> Path:
    """The arrays of a finite process and logged episodes of it."""
    draw = np.random.default_rng(0)
    np.savez(
        folder / "process.npz",
        transition=draw.dirichlet(np.ones(4), (4, 2)),
        reward=draw.random((3, 4, 2)),
        cost=draw.random((4, 2, 1)),
        states=draw.integers(0, 4, (5, 4)),
        actions=draw.integers(0, 2, (5, 3)),
        rewards=draw.random((5, 3)),
    )
    return folder / "process.npz"


def finite_process(folder: Path) -> Path:
    """A finite process in a file, with what methods may know of it besides."""
    draw = np.random.default_rng(0)
    np.savez(
        folder / "finite.npz",
        transition=draw.dirichlet(np.ones(4), (4, 2)),
        reward=draw.random((3, 4, 2)),
        initial=np.eye(4)[0],
        budgets=np.ones(1),
        cost=draw.random((4, 2, 1)),
        candidates=draw.random((2, 3, 4, 2)),
    )
    return folder / "finite.npz"


def _logged(prefix: str = "") -> dict[str, np.ndarray]:
    draw = np.random.default_rng(1)
    return {
        f"{prefix}state": draw.integers(0, 4, (5, 4)),
        f"{prefix}action": draw.integers(0, 2, (5, 3)),
    }


def finite_episodes(folder: Path) -> Path:
    """Logged episodes of a finite process."""
    draw = np.random.default_rng(2)
    more = {"reward": draw.random((5, 3)), "cost": draw.random((5, 3, 1))}
    np.savez(folder / "episodes.npz", **_logged(), **more)
    return folder / "episodes.npz"


def finite_comparisons(folder: Path) -> Path:
    """Logged pairs of episodes, and which was preferred."""
    preferred = np.array([0, 1, 1, 0, 1])
    logged = {**_logged("first_"), **_logged("second_")}
    np.savez(folder / "pairs.npz", first_preferred=preferred, **logged)
    return folder / "pairs.npz"


def finite_table(folder: Path) -> Path:
    """Logged episodes of a finite process, a row for each step."""
    rows = ["0,0,1,0.5,2", "0,2,0,1.0,1", "1,0,0,0.0,0", "1,0,1,0.25,3"]
    text = "\n".join(["episode,state,action,reward,next_state", *rows])
    (folder / "episodes.csv").write_text(text + "\n", encoding="utf-8")
    return folder / "episodes.csv"


def claim_records(folder: Path) -> Path:
    """What claims found."""
    row = {
        "claim": "own",
        "scale": "smoke",
        "seed": 0,
        "outcome": "holds",
        "seconds": 1.5,
        "time": "2026-01-01T00:00:00+00:00",
        "commit": None,
        "dirty": None,
        "source": "0123",
        "made_with": {"python": "3.11"},
        "criteria": [
            {"what": "more", "point": 1.0, "low": 0.5, "high": 1.5, "level": 0.95, "seeds": 4,
             "at_least": 0.0, "verdict": "holds"}
        ],
        "numbers": {"regret": 3.0},
        "curves": {"a": {"x": [1, 2], "mean": [1.0, 2.0], "low": None, "high": None, "seeds": 2}},
    }  # fmt: skip
    (folder / "results").mkdir()
    return _lines(folder / "results" / "own.jsonl", [row, {**row, "seed": 1}]).parent


SEEDS: dict[str, Callable[[Path], Path]] = {
    made.__name__: made
    for made in (
        npz,
        npz_compressed,
        hdf5,
        hdf5_compressed,
        minari,
        minari_arrow,
        minari_parquet,
        parquet,
        arrow,
        declared,
        csv,
        text_dialect,
        parquet_files,
        npz_padded,
        hdf5_numbered,
        hdf5_groups,
        column_directory,
        run,
        model,
        reward_run,
        completions,
        conversations,
        comparisons,
        completions_parquet,
        book,
        process,
        finite_process,
        finite_episodes,
        finite_comparisons,
        finite_table,
        claim_records,
    )
}
"""Every kind of input: its name, and what writes a valid one into a folder."""
