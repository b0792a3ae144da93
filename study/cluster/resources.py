"""How the CPUs and GPUs of a Ray are divided among trials."""

from __future__ import annotations

from collections.abc import Sequence

from study.cluster.nodes import Node
from study.errors import StudyError
from study.sweep.execution import Execution
from study.sweep.plan import Plan

MOST_TRIALS_PER_GPU = 4
"""These networks are small: so many trials share a GPU by default, fewer where there are not as many."""


def divided(execution: Execution, plan: Plan, nodes: Sequence[Node]) -> Execution:
    """The execution with GPUs and workers chosen, once it is known what there is.

    By default trials share GPUs only when there are more of them than GPUs, evenly, and never more than
    `MOST_TRIALS_PER_GPU` on one; where there is none, or the trials are told to train on the CPU, they ask for none.
    A cluster may grow, so the number of trials at once is left open there, unless the user limits it.

    Raises:
        StudyError: no node has what one trial asks for.
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
    """The share of a GPU that each of so many trials gets at most, so that all GPUs are used and none holds too many."""
    gpus = sum(int(node.resources.get("GPU", 0)) for node in nodes)
    if not gpus:
        return 0.0
    by_cpu = sum(node.fits(cpus, 0) for node in nodes if node.resources.get("GPU", 0))
    on_each = -(-min(trials, max(1, by_cpu)) // gpus)
    return 1 / min(MOST_TRIALS_PER_GPU, on_each)
