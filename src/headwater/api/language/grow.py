"""Train a decoder from scratch on texts, growing while it learns."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from headwater.core.errors import RunError, SpecificationError
from headwater.core.tokens import TokenProblem
from headwater.methods.language.growth.raptr import RaPTr
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.hugging_face import write_decoder
from headwater.runs.directory import RunDirectory
from headwater.runs.loop import run
from headwater.runs.recipes.growth import Plan, growing_stages, progressive_stages
from headwater.sources.language.completions import CompletionReplay
from headwater.texts.texts import read_completions
from headwater.texts.tokenizers import AbstractTokenizer, ByteTokenizer, read_tokenizer

_MODEL = "model"


@dataclasses.dataclass(frozen=True)
class GrowthSettings:
    """What growing a decoder was asked for.

    **Arguments:** `data`: a file of texts; `tokenizer`: a directory with one (default: bytes);
    `layers`, `width`, `heads`, `context`: of the finished decoder; `stages`; `updates`: in all;
    `operator`: a name in `runs.growth.OPERATORS`, or `raptr` to train random sub-networks that get
    deeper; `power`: how much longer deep stages are; `rows`: in a batch; `learning_rate`: at first,
    falling to zero over all updates; `seed`.
    """

    data: str
    tokenizer: str | None = None
    layers: int = 6
    width: int = 128
    heads: int = 4
    context: int = 128
    stages: int = 3
    updates: int = 2_000
    operator: str = "midas"
    power: float = 1.0
    rows: int = 32
    learning_rate: float = 1e-3
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class GrownModel:
    """What came of growing.

    **Arguments:** `path`: of the run; `model`: directory of what was learned, which `transformers`
    loads; `metrics`: the last row; `tokens_per_second`: of the last stretch that was logged.
    """

    path: Path
    model: Path
    metrics: dict[str, float]
    tokens_per_second: float


def grow_language(
    settings: GrowthSettings, out: str | Path, *, progress: bool | None = None
) -> GrownModel:
    """Trains a decoder in stages, and writes it to `out/model`.

    A run that was interrupted goes on if the same is asked for again. Raises
    `SpecificationError` or `DataError` for what cannot be done, and `RunError` if `out` holds
    something else.
    """
    out = Path(out)
    specification = {"kind": "language growth", **dataclasses.asdict(settings)}
    if (out / "run.json").is_file():
        directory = RunDirectory.open(out)
        stored = directory.specification
        given = json.loads(json.dumps(specification))
        if different := [name for name in given if stored.get(name) != given[name]]:
            raise RunError(
                f"{out} holds a run with other settings ({different[0]}): choose another name, or "
                "give the same settings to continue it"
            )
    else:
        directory = None
    tokenizer: AbstractTokenizer = ByteTokenizer()
    if settings.tokenizer is not None:
        tokenizer = read_tokenizer(settings.tokenizer)
    # Embeddings of a round number of rows are faster; texts never hold the tokens
    # that are added, and decoding leaves them out.
    vocabulary = 8 * math.ceil(tokenizer.size / 8)
    architecture = Architecture(
        vocabulary, settings.context, settings.width, settings.layers, settings.heads, tied=True
    )
    read = read_completions(settings.data, tokenizer, settings.context)
    plan = _plan(settings, CompletionReplay(read.data, settings.rows))
    problem = TokenProblem(Decoder(architecture, key=jax.random.key(settings.seed)), tokenizer.ends)
    if directory is None:
        directory = RunDirectory.create(out, specification)
    result = run(
        plan.stages, problem, seed=settings.seed, directory=directory, progress=progress, logs=20
    )
    last = plan.stages[-1]
    state = jax.tree.map(lambda x: x[0], result.outcomes[last.name].state)
    learned = out / _MODEL
    network = last.method.network(state)  # pyright: ignore[reportAttributeAccessIssue]
    write_decoder(
        network, learned, tokenizer=settings.tokenizer, end=tokenizer.ends, overwrite=True
    )
    if isinstance(tokenizer, ByteTokenizer):
        tokenizer.write(learned)
    rows: list[dict[str, Any]] = [r for r in result.metrics if "updates_per_second" in r]
    metrics = {name: float(np.mean(v)) for name, v in rows[-1]["metrics"].items()} if rows else {}
    pace = float(rows[-1]["updates_per_second"]) if rows else 0.0
    return GrownModel(out, learned, metrics, pace * settings.rows * read.tokens_per_record)


def _plan(settings: GrowthSettings, source: CompletionReplay) -> Plan:
    if min(settings.layers, settings.stages, settings.updates, settings.rows) < 1:
        raise SpecificationError("layers, stages, updates and rows must be at least 1")
    rates: dict[str, Any] = {
        "learning_rate": settings.learning_rate,
        "warmup_updates": settings.updates / 50,
        "decay_updates": float(settings.updates),
    }
    if settings.operator == "raptr":
        fewest = max(settings.layers // 2, min(2, settings.layers))
        depths = np.linspace(fewest, settings.layers, settings.stages).round().astype(int).tolist()
        return progressive_stages(RaPTr(**rates), source, depths=depths, updates=settings.updates)
    return growing_stages(
        SFT(**rates),
        source,
        layers=settings.layers,
        stages=settings.stages,
        updates=settings.updates,
        power=settings.power,
        operator=settings.operator,
    )
