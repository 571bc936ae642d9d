"""Runs of a sweep as tasks of Ray, on one machine or on many that share their files.

Ray is an extra, and imported only where it is asked for.
"""

import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from headwater.core.errors import RunError, SpecificationError
from headwater.sweeps.workers import AbstractWorkers, Ended, available_cores

_PROBE_SECONDS = 120.0
_ANSWER_SECONDS = 5.0
_LAST_PORT = 65_535


def require_ray() -> None:
    """Raises `SpecificationError` unless Ray is installed."""
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError:
        raise SpecificationError(
            "sweeping on ray needs Ray: pip install 'headwater[ray]' (here and on every machine)"
        ) from None


class RayWorkers(AbstractWorkers):
    """Tasks of Ray, each in a process of its own.

    **Arguments:** `carry_out`: what a task does, with `directory`, `token`, the run's name and the
    number of cores; `lacks`: says whether a machine sees the files; `address`: of a cluster, or
    `None` to start Ray here; `jobs`: tasks at a time (default: one for each GPU, or else core).

    Raises `RunError` if the cluster cannot be reached, or has a machine without the files.
    """

    def __init__(
        self,
        carry_out: Callable[[str, str, str, int], Ended],
        lacks: Callable[[str, str], str],
        directory: str,
        token: str,
        address: str | None,
        jobs: int | None,
    ):
        import ray

        self._began = _begin(address)
        self._running: dict[Any, str] = {}
        try:
            _require_files(lacks, directory, token)
            machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            gpus = sum(int(machine.get("GPU", 0)) for machine in machines)
            # A task is on one machine, and where there are GPUs, on one that has some.
            able = [machine for machine in machines if not gpus or machine.get("GPU", 0) >= 1]
            cores = [int(machine.get("CPU", 0)) for machine in able]
            self._jobs = jobs or max(1, gpus or sum(cores))
            self._cores = cores_each(cores, self._jobs)
            self._machines = len(machines)
            # A new process for every task, so that nothing of one run is left for the next; and
            # none is tried again behind the back of whoever counts and writes down the failures.
            self._task = ray.remote(
                num_cpus=self._cores,
                num_gpus=min(1.0, gpus / self._jobs),
                max_calls=1,
                max_retries=0,
            )(carry_out)
        except BaseException:
            self._leave()
            raise
        self._arguments = (directory, token)

    @property
    def description(self) -> str:
        machines = "1 machine" if self._machines == 1 else f"{self._machines} machines"
        each = "1 core" if self._cores == 1 else f"{self._cores} cores"
        return f"{self._jobs} at a time on {machines} of Ray, with {each} each"

    def free(self) -> bool:
        return len(self._running) < self._jobs

    def start(self, name: str) -> None:
        self._running[self._task.remote(*self._arguments, name, self._cores)] = name

    def ended(self) -> dict[str, Ended]:
        import ray

        found = {}
        tasks = list(self._running)
        over = ray.wait(tasks, num_returns=len(tasks), timeout=0)[0] if tasks else []
        for task in over:
            name = self._running.pop(task)
            try:
                found[name] = Ended(*ray.get(task))
            except ray.exceptions.WorkerCrashedError:
                found[name] = Ended("killed", "its worker on Ray died; memory may have run out")
            except ray.exceptions.RayError as error:
                found[name] = Ended("killed", f"its worker on Ray died ({_first_line(error)})")
        return found

    def stop(self) -> None:
        import ray

        for task in self._running:
            ray.cancel(task, force=True)
        self._running.clear()
        self._leave()

    def _leave(self) -> None:
        import ray

        # Whoever was connected before the sweep stays so.
        if self._began:
            ray.shutdown()


def cores_each(machines: list[int], jobs: int) -> int:
    """The most cores that so many tasks at a time can each have, all of one on the same machine.

    **Arguments:** `machines`: cores of each.
    """
    for share in range(max(machines, default=1), 1, -1):
        if sum(cores // share for cores in machines) >= jobs:
            return share
    return 1


def _begin(address: str | None) -> bool:
    """Connects this process to Ray; false if it was connected already."""
    import ray

    if ray.is_initialized():
        return False
    if address is None:
        # Started here for this sweep: it is to report nothing to anybody.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    else:
        _require_answer(address)
    here = {"num_cpus": len(available_cores()), "include_dashboard": False}
    try:
        ray.init(
            address="local" if address is None else address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(here if address is None else {}),
        )
        return True
    except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as error:
        if address is None:
            raise RunError(f"Ray cannot be started here ({_first_line(error)})") from None
        raise RunError(
            f"Ray cannot be reached at {address} ({_first_line(error)}): give the command on a "
            "machine of the cluster, with the same version of Ray and, if the cluster asks for it, "
            "its token (RAY_AUTH_MODE=token)"
        ) from None


def _require_answer(address: str) -> None:
    """Raises `RunError` at once if there is nobody at `address`, which Ray takes minutes to say."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit() or int(port) > _LAST_PORT:
        raise SpecificationError(f"--address {address} is not of the form HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except OSError as error:
        raise RunError(
            f"nobody answers at {address} ({error.strerror or error}): begin the cluster with "
            "`ray start --head`, or leave out the address to start Ray here"
        ) from None


def _require_files(lacks: Callable[[str, str], str], directory: str, token: str) -> None:
    """Asks every machine of the cluster whether it sees the sweep."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(lacks)
    machines = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = probe.options(scheduling_strategy=there).remote(directory, token)
            machines[task] = node["NodeManagerAddress"]
    for task, machine in machines.items():
        try:
            unseen = ray.get(task, timeout=_PROBE_SECONDS)
        except ray.exceptions.RayError as error:
            raise RunError(
                f"the machine {machine} cannot take part ({_first_line(error)}): it needs the same "
                "Python, Headwater and Ray as this one"
            ) from None
        if unseen:
            raise RunError(unseen)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines and lines[0].endswith(":") else (lines or ["no reason given"])[0])[
        :300
    ]
