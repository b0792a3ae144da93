"""Divides the CPUs and GPUs of Ray among trials."""

from __future__ import annotations

from collections.abc import Sequence

from study.cluster.nodes import Node
from study.errors import StudyError
from study.sweep.execution import Execution
from study.sweep.plan import Plan

MOST_TRIALS_PER_GPU = 4
"""Most trials that share a GPU by default. The networks are small, so several fit."""


def divided(execution: Execution, plan: Plan, nodes: Sequence[Node]) -> Execution:
    """Returns the execution with GPUs and workers chosen.

    By default trials share GPUs only if there are more trials than GPUs, and then evenly, with at most `MOST_TRIALS_PER_GPU`
    on one. They get no GPU if there is none, or if all of them are set to train on the CPU. A cluster may grow, so the number
    of trials at once stays open there unless the user limits it.

    Raises:
        StudyError: no node has the resources that one trial asks for.
    """
    cpus = execution.cpus_per_trial
    share = execution.gpus_per_trial
    if share is None:
        share = (
            0.0
            if plan.needs_no_gpu
            else _gpu_share(nodes, cpus, min(plan.trial_count, execution.workers or plan.trial_count))
        )
    elif share > 1 and share % 1:
        raise StudyError(
            f"--gpus-per-trial {share:g}: Ray shares one card or gives whole ones; use 1, 2, ..., or a fraction below 1."
        )
    for what, asked, name in (("CPUs", cpus, "CPU"), ("GPUs", share, "GPU")):
        most = max((node.resources.get(name, 0.0) for node in nodes), default=0.0)
        if asked > most:
            has = f"this Ray has {most:g}" if len(nodes) == 1 else f"no node of this Ray has more than {most:g}"
            raise StudyError(f"Each trial asks for {asked:g} {what}, but {has}; lower --{what.lower()}-per-trial.")
    fitting = sum(node.fits(cpus, share) for node in nodes)
    if not fitting:
        raise StudyError(
            f"No node of this Ray has both the {cpus:g} CPUs and the {share:g} GPUs that each trial asks for; lower "
            f"--cpus-per-trial or --gpus-per-trial."
        )
    if plan.needs_gpu and not share:
        raise StudyError("training/device=cuda, but no GPU is given to the trials; use training/device=auto or cpu.")
    workers = execution.workers
    if execution.is_local:
        workers = min(workers or fitting, fitting)
    return execution.model_copy(update={"gpus_per_trial": share, "workers": workers})


def _gpu_share(nodes: Sequence[Node], cpus: float, trials: int) -> float:
    """The share of a GPU for each of `trials` trials.

    It spreads the trials over all GPUs, with at most `MOST_TRIALS_PER_GPU` on one.
    """
    gpus = sum(int(node.resources.get("GPU", 0)) for node in nodes)
    if not gpus:
        return 0.0
    by_cpu = sum(node.fits(cpus, 0) for node in nodes if node.resources.get("GPU", 0))
    on_each = -(-min(trials, max(1, by_cpu)) // gpus)  # rounded up
    return 1 / min(MOST_TRIALS_PER_GPU, on_each)
