"""`headwater data label`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.data.reading_options import AS_IT_IS, Reading


def command(
    data: Annotated[str, tyro.conf.Positional, option("DATA")],
    target: Annotated[Path, tyro.conf.Positional, option("TARGET")],
    /,
    run: Annotated[Path, option("DIR", "-r")],
    at_least: Annotated[float, option("SHARE")] = 0.0,
    overwrite: Flag = False,
    reading: Reading = AS_IT_IS,
) -> None:
    """Infer the actions or the rewards that a log lacks, with what a run learned from the log.

    Examples: `headwater train InverseDynamics -d log.parquet --missing-actions keep -o runs/idm`,
    then `headwater data label log.parquet labelled.parquet -r runs/idm --missing-actions keep`.

    What was logged stays as it is. The column action_confidence of the target tells it from what
    was inferred: 1 is logged, and what is below 1 is how probably an inferred action is right.

    A run of PreferenceReward or PerceptualReward gives all rows new rewards, which `headwater data
    describe` then says.

    Args:
        data: Logged transitions, of which some lack actions or all lack rewards.
        target: What to write, in the format of its suffix; a name without one is a column
            directory. It must not exist.
        run: Directory of a run of InverseDynamics, PreferenceReward or PerceptualReward.
        at_least: Leave out the rows whose action is inferred with less confidence than this.
        overwrite: Replace the target if it exists.
    """
    from headwater.api.data.label import label
    from headwater.datasets.write import write

    labelled = label(data, run, at_least=at_least, data_options=reading.given())
    print(write(labelled, target, overwrite=overwrite))
