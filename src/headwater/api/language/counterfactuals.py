"""Counterfactual copies of texts in a file, to learn from both."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.runs.files import write_atomically
from headwater.runs.options import check_seed
from headwater.texts.counterfactuals import WordExchange, with_counterfactuals
from headwater.texts.rows import stored_rows


class Augmented(NamedTuple):
    """What was written: its place, the rows that there were, and the counterfactual ones."""

    path: Path
    rows: int
    added: int


def write_counterfactuals(
    source: str | Path,
    target: str | Path,
    words: Sequence[str | Sequence[str]],
    *,
    columns: Sequence[str] = (),
    seed: int = 0,
    overwrite: bool = False,
) -> Augmented:
    """Writes each row and, where it has a word for a group of people, a copy about another group.

    A model, or adapters alone, that learn from both have no reason to go by the group
    (counterfactual data augmentation; Agarwal et al., 2023, arXiv:2312.00434, learn adapters so).

    **Arguments:** `source`: JSON Lines, JSON, CSV or Parquet in the columns that TRL uses;
    `target`: JSON Lines; `words`: the sets of words to exchange, one word for each group and always
    in one order of groups, as `"he=she"` or as `("he", "she")`. Of three groups or more another one
    is drawn for each row; `columns`: of other names that hold texts; `seed`: of that draw;
    `overwrite`: replace the target.

    Raises `SpecificationError` for words that make no sense, `RunError` for a target that exists,
    and `DataError` for rows that cannot be read or of which none has any of the words.
    """
    check_seed(seed)
    exchange = WordExchange([w.split("=") if isinstance(w, str) else w for w in words])
    source, target = Path(source), Path(target)
    if target.suffix.lower() not in (".jsonl", ".ndjson"):
        raise SpecificationError(f"{target}: texts are written as JSON Lines: call it .jsonl")
    if target.exists() and not overwrite:
        raise RunError(f"{target} already exists: choose another path, or ask to overwrite it")
    rows = (fields for _, fields in stored_rows(source))
    counts = [0, 0]
    lines: list[str] = []
    for fields, is_new in with_counterfactuals(
        rows, exchange, np.random.default_rng(seed), columns
    ):
        counts[is_new] += 1
        lines.append(json.dumps(fields, ensure_ascii=False, default=str))
    if not counts[1]:
        shown = ", ".join("=".join(each) for each in exchange.sets[:5])
        raise DataError(
            f"{source}: none of its {counts[0]} rows has any of the words to exchange ({shown}): "
            "check the words, and name the columns that hold the texts"
        )
    text = "".join(f"{line}\n" for line in lines)
    write_atomically(target, lambda path: path.write_text(text, encoding="utf-8"))
    return Augmented(target, *counts)
