"""Headwater: learn decisions from experience that already exists.

Everything public is reached from here and imported on first use, so that `import headwater` and
`headwater --help` stay instant.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "headwater.core.errors": (
        "DataError",
        "Diverged",
        "HeadwaterError",
        "RunError",
        "SpecificationError",
    ),
    "headwater.core.catalogue": ("all_methods", "build_method"),
    "headwater.core.finite": ("AbstractFiniteSimulator", "FiniteProblem", "FiniteProcess"),
    "headwater.core.problems.arms": ("Arms",),
    "headwater.core.problems.measured_space": ("MeasuredSpace",),
    "headwater.core.problems.search_space": ("SearchSpace",),
    "headwater.core.records": ("Episodes", "Pulls", "Queries"),
    "headwater.datasets.black_boxes.earlier_tasks": ("EarlierTasks",),
    "headwater.datasets.dataset": ("Dataset",),
    "headwater.environments.black_boxes.black_box": ("BlackBox",),
    "headwater.environments.black_boxes.compression": ("Compression",),
    "headwater.environments.black_boxes.measured_box": ("MeasuredBox",),
    "headwater.environments.registry": ("make",),
    "headwater.runs.recipes.learning_rates": ("train_with_chosen_rates",),
    "headwater.environments.reward_programs.rewarded": ("StepFeatures",),
    "headwater.runs.recipes.reward_programs.language_model": ("LanguageModelProposer",),
    "headwater.runs.recipes.reward_programs.practice": ("MethodLearner",),
    "headwater.runs.recipes.reward_programs.rounds": ("reward_from_preferences",),
    "headwater.runs.recipes.reward_programs.scripted": ("ScriptedProposer",),
    "headwater.runs.stage": ("Stage",),
    "headwater.sources.episodes": ("log_episodes",),
    "headwater.datasets.read": ("load",),
    "headwater.api.adapt": ("adapt",),
    "headwater.api.campaigns.archive_search": ("ArchiveSearch",),
    "headwater.api.campaigns.campaign": ("Campaign",),
    "headwater.api.campaigns.quantities": ("Component",),
    "headwater.api.data.advise": ("advise",),
    "headwater.api.data.label": ("label",),
    "headwater.api.data.rewarded": ("rewarded",),
    "headwater.api.collect": ("collect",),
    "headwater.api.compare": ("compare", "select"),
    "headwater.api.compress": ("compress",),
    "headwater.api.evaluate": ("evaluate",),
    "headwater.api.execute": ("resume",),
    "headwater.api.export": ("export",),
    "headwater.api.evidence.papers": ("cite",),
    "headwater.api.policies.arm_policy": ("ArmPolicy",),
    "headwater.api.report": ("report",),
    "headwater.api.run": ("open_run",),
    "headwater.api.query": ("query",),
    "headwater.api.standing": ("beside_behaviour",),
    "headwater.api.solve": ("solve",),
    "headwater.api.sweeps.sweep": ("open_sweep", "sweep"),
    "headwater.api.train": ("train",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name == "testing":
        return importlib.import_module("headwater.testing")
    if not name.startswith("_"):
        from headwater.core.listing import method_modules

        if name in method_modules():
            return getattr(importlib.import_module(method_modules()[name]), name)
    raise AttributeError(f"module 'headwater' has no attribute '{name}'")


def __dir__() -> list[str]:
    from headwater.core.listing import method_modules

    return sorted([*globals(), "testing", *_HOME, *method_modules()])
