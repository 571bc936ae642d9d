"""An archive of solutions as a table."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from headwater.core.problems.measured_space import MeasuredSpace
from headwater.parts.quality_diversity.archive import Archive


def archive_table(
    archive: Archive,
    problem: MeasuredSpace,
    names: Sequence[str] = (),
    measures: Sequence[str] = (),
    *,
    sign: float = 1.0,
) -> pa.Table:
    """Solutions in the user's units, their objective and their measures, a row for each.

    **Arguments:** `names`, `measures`: of the columns (`solution_0`, … and `measure_0`, … unless
    given); `sign`: -1 where less is better, so that objectives are shown as they were told.
    """
    names = names or [f"solution_{i}" for i in range(problem.size)]
    measures = measures or [f"measure_{i}" for i in range(problem.measures)]
    rows = np.flatnonzero(np.asarray(archive.filled))
    solution = problem.space.from_unit(np.asarray(archive.solution, np.float64)[rows])
    whole = problem.space.whole or (False,) * problem.size
    columns = {
        name: solution[:, i].astype(np.int64) if whole[i] else solution[:, i]
        for i, name in enumerate(names)
    }
    columns["objective"] = sign * np.asarray(archive.objective, np.float64)[rows]
    for i, name in enumerate(measures):
        columns[name] = np.asarray(archive.measures, np.float64)[rows, i]
    return pa.table(columns)
