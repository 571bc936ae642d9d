"""How each kind of input is read, as far as a command would before it computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core.errors import DataError


def _data(path: Path) -> None:
    from headwater.analysis.describe import describe
    from headwater.datasets.read import load, load_blocks

    data = load(path)
    _check(data)
    for block in load_blocks(path, 16):
        _check(block)
    str(describe(data))


def _check(data: Any) -> None:
    """What was accepted must be usable."""
    assert np.isfinite(data.observations).all() and np.isfinite(data.rewards).all()
    assert data.episode_starts[-1] == data.size and (data.episode_lengths() > 0).all()
    data.transitions()
    data.references()
    data.fingerprint()


def _columns(path: Path) -> None:
    from headwater.datasets.formats.directory_format import open_columns
    from headwater.sources.out_of_core import OutOfCoreReplay

    opened = open_columns(path)
    opened.fingerprint()
    OutOfCoreReplay(str(path), 4, None)
    _data(path)


def _run(path: Path) -> None:
    from headwater.api.compare import compare
    from headwater.api.execute import resume
    from headwater.api.run import open_run
    from headwater.runs.directory import RunDirectory
    from headwater.runs.journal import Journal
    from headwater.runs.progress import Progress

    found = open_run(path)
    found.policy(np.zeros(found.spaces.observation_size, np.float32))
    _ = found.curve, found.final_returns, found.score(), found.references
    compare([found])
    Journal(RunDirectory.open(path), Progress(False), False).resume()
    if found.finished:
        resume(path, progress=False)


def _model(path: Path) -> None:
    from headwater.texts.models import load_language_model

    found = load_language_model(path)
    messages = [{"role": "user", "content": "Hi"}]
    text = found.tokenizer.conversation(messages, answer_follows=True)
    found.tokenizer.decode(found.tokenizer.encode(text))


def _reward(path: Path) -> None:
    from headwater.api.inputs import load_reward

    load_reward(path, 259)


def _texts(path: Path) -> None:
    from headwater.texts.completion_advantages import advantages
    from headwater.texts.texts import read_completions
    from headwater.texts.tokenizers import ByteTokenizer

    found = read_completions(path, ByteTokenizer(), 64, too_long="drop")
    if found.data.reward is not None:
        advantages(found.data, found.data.reward * 0)


def _prompts(path: Path) -> None:
    from headwater.texts.texts import read_prompts
    from headwater.texts.tokenizers import ByteTokenizer

    read_prompts(path, ByteTokenizer(), 64, too_long="cut_prompt")
    _texts(path)


def _pairs(path: Path) -> None:
    from headwater.texts.texts import read_comparisons
    from headwater.texts.tokenizers import ByteTokenizer

    read_comparisons(path, ByteTokenizer(), 64, too_long="cut_response")


def _process(path: Path) -> None:
    """Arrays are the user's to read, so those that NumPy refuses are no concern of ours."""
    from headwater.core.finite import FiniteProcess
    from headwater.core.records import Episodes
    from headwater.runs.feeds.finite import check_episodes

    if not path.is_file():
        raise DataError("not a file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            given = {name: archive[name] for name in archive.files}
            arrays = [given[n] for n in ("transition", "reward", "cost")]
            logged = [given[n] for n in ("states", "actions", "rewards")]
        if any(array.dtype.kind not in "biuf" for array in logged):
            raise DataError("records of episodes hold numbers, as their types say")
    except Exception as error:
        raise DataError("not an archive") from error
    process = FiniteProcess.from_arrays(*arrays[:2], cost=arrays[2])
    check_episodes(Episodes(*logged), process.problem())


def _finite_process(path: Path) -> None:
    from headwater.datasets.finite_files import read_process

    read_process(path).to_arrays()


def _finite_episodes(path: Path) -> None:
    from headwater.datasets.finite_files import read_episodes

    episodes = read_episodes(path)
    assert episodes.state.shape == (len(episodes.action), episodes.action.shape[1] + 1)


def _finite_comparisons(path: Path) -> None:
    from headwater.datasets.finite_files import read_episode_comparisons

    pairs = read_episode_comparisons(path)
    assert pairs.first.action.shape == pairs.second.action.shape


def _records(path: Path) -> None:
    from headwater.evidence.record import latest, read_records

    records, _ = read_records(path)
    for record in latest(records).values():
        record.to_json()


READERS: dict[str, Callable[[Path], None]] = {
    "column_directory": _columns,
    "run": _run,
    "model": _model,
    "reward_run": _reward,
    "completions": _prompts,
    "conversations": _texts,
    "comparisons": _pairs,
    "completions_parquet": _prompts,
    "book": _texts,
    "process": _process,
    "finite_process": _finite_process,
    "finite_episodes": _finite_episodes,
    "finite_comparisons": _finite_comparisons,
    "finite_table": _finite_episodes,
    "claim_records": _records,
}
"""By the name of the seed; `_data` reads all others."""


def read(kind: str, path: Path) -> None:
    """Reads an input of that kind. Raises what the readers raise."""
    READERS.get(kind, _data)(path)
