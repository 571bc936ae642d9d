"""`headwater adapt`."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from headwater.cli.arguments import Flag, Settings, option
from headwater.cli.frame import chosen_task, read_settings
from headwater.runs.options import ADAPT, DEFAULT_RECIPE


def command(
    run: Annotated[Path, tyro.conf.Positional, option("RUN")],
    /,
    env: Annotated[str | None, option("ENV", "-e")] = None,
    out: Annotated[Path | None, option("DIR", "-o")] = None,
    data: Annotated[str | None, option("DATA")] = None,
    set: Settings = (),
    env_option: Settings = (),
    json: Flag = False,
    options: Annotated[Any, ADAPT] = None,
) -> None:
    """Take an offline run online, each of its seeds by itself, with few new samples.

    `keep-data` starts SAC from the offline actor and critics, and draws a share of every batch from
    the log, and may fall at first where the log is narrow, which is then said; `proto` does the
    same with PROTO, which is held near the offline policy: for such logs; `staged` does what
    `proto` does, and is held near what it has become since, each time that an eighth of the steps,
    in four whole episodes or more, has not returned less than before; `by-log` is `staged` where
    the log is narrow, that is, where its actions are spread about the offline policy by less than
    three quarters of what uniform ones would be, and `keep-data` elsewhere; `wsrl` starts SAC
    without the log, and may fall at first; `rlpd` learns from nothing with a share of every batch
    from the log; `ppo` starts PPO from the offline actor, which may be a clone, and draws it back
    to what it was, without the log; `continue` goes on with the offline method and a share of every
    batch from the log; `dagger` does so with a policy that clones, and learns what an expert, whom
    the environment knows, would have done where the policy came to; `scratch` is the online method
    of `wsrl` from nothing and without the log: the twin that says what the log was worth. Compare
    them with `headwater compare`.

    Args:
        run: Directory of a finished offline run.
        env: Where to act; by default where the run was evaluated.
        out: Directory of the new run; by default RUN-RECIPE. It must not exist.
        data: The log; by default what the run learned from.
        set: A hyper-parameter of the online method; may be repeated.
        env_option: An option of the environment; may be repeated.
        json: Print the result as JSON.
    """
    from headwater.api.adapt import adapt
    from headwater.cli.train import report

    given = options or {}
    result = adapt(
        run,
        env=chosen_task(env, env_option),
        data=data,
        set=read_settings(set),
        out=out or run.with_name(f"{run.name}-{given.get('recipe', DEFAULT_RECIPE)}"),
        progress=None if json else True,
        **given,
    )
    report(result, json)
