"""Whether more experts make a decoder better that was trained with more and more of them."""

import itertools

import jax
import numpy as np

from headwater.environments.language.recall_tasks import MarkovTexts
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.evidence.language.experts import each_run, loss_on, trained
from headwater.methods.language.experts.smoe_dropout import SMoEDropout
from headwater.methods.language.experts.switch import Switch
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.changes import with_router

_EXPERTS, _FEWEST, _RATE = 8, 2, 5e-3
_ASKED = (2, 4, 6, 8)
_ARMS = ("SMoE-Dropout", "all from the start", "learned router", "dense")


def _experiment(
    seed: int,
    runs: int,
    updates: int,
    rows: int,
    width: int,
    arms: tuple[str, ...] = _ARMS,
    asked: tuple[int, ...] = _ASKED,
) -> Finding:
    hidden = 4 * width

    def architecture(experts: int, active: int) -> Architecture:
        parts = hidden // max(experts, 1)
        return Architecture(
            17, 26, width, 2, 2, hidden=parts, experts=experts, active_experts=active
        )

    def one(key):
        task_key, test_key, key = jax.random.split(key, 3)
        task = MarkovTexts(key=task_key)
        data = task.texts(512, key=test_key)
        methods = {
            "SMoE-Dropout": (
                SMoEDropout(first_active=_FEWEST, ramp_updates=float(updates)),
                _FEWEST,
            ),
            "all from the start": (SMoEDropout(first_active=_EXPERTS), _EXPERTS),
            "learned router": (Switch(), _FEWEST),
        }
        found = {}
        for name in [name for name in methods if name in arms]:
            method, active = methods[name]
            decoder = architecture(_EXPERTS, active)
            state = trained(method, decoder, task, updates, rows, rate=_RATE, key=key)
            for active in asked:
                network = with_router(state.network, active=active)
                found[f"{name}, {active}"] = loss_on(network, data)
        if "dense" in arms:
            decoder = architecture(0, 1)
            state = trained(SFT(), decoder, task, updates, rows, rate=_RATE, key=key)
            found["dense"] = loss_on(state.network, data)
        return found

    found = {name: np.asarray(x, np.float64) for name, x in each_run(one, seed, runs).items()}
    criteria = [
        Criterion(
            f"loss of SMoE-Dropout with {after} experts less that with {before}",
            mean_of(found[f"SMoE-Dropout, {after}"] - found[f"SMoE-Dropout, {before}"]),
            at_most=0.01,
        )
        for before, after in itertools.pairwise(asked)
    ]
    if "dense" in arms:
        criteria.append(
            Criterion(
                "loss of SMoE-Dropout with all experts less that of the decoder without",
                mean_of(found[f"SMoE-Dropout, {_EXPERTS}"] - found["dense"]),
                at_most=0.01,
            )
        )
    if "learned router" in arms:
        stalls = found[f"learned router, {_EXPERTS}"] - found[f"learned router, {_FEWEST}"]
        criteria.append(
            Criterion(
                "loss with a learned router and 8 experts less that with the 2 of its training",
                mean_of(stalls),
                at_least=0.0,
            )
        )
    numbers = {name: float(values.mean()) for name, values in found.items()}
    return Finding(tuple(criteria), {"nats per token": numbers})


CLAIMS = (
    Claim(
        name="smoe-dropout-may-be-used-with-any-number-of-experts",
        statement=(
            "A decoder trained with a random router that asks 2 to 8 of 8 experts does not get "
            "worse by more than 0.01 nats per token with 4, 6 and 8 experts, and with all is at "
            "most 0.01 above a decoder without experts of the same size; one whose router learned "
            "with 2 experts does not gain from 8."
        ),
        methods=("SMoEDropout", "Switch", "SFT"),
        paper="chen2023sparse",
        where="the abstract: self-slimmable, and better than dense at full capacity",
        scales={
            "smoke": {
                "runs": 3,
                "updates": 3,
                "rows": 4,
                "width": 8,
                "arms": ("SMoE-Dropout",),
                "asked": (2, 8),
            },
            "small": {"runs": 3, "updates": 800, "rows": 32, "width": 16},
        },
        experiment=_experiment,
    ),
)
