"""Divides the CPUs and GPUs of Ray among trials."""

from __future__ import annotations

from collections.abc import Sequence

from study.cluster.nodes import Node
from study.errors import StudyError
from study.sweep.execution import LANES_PER_GPU, Execution
from study.sweep.plan import Plan

BATCHES = 4
"""A sampler draws at least this many batches: it learns nothing within one."""


def divided(execution: Execution, plan: Plan, nodes: Sequence[Node]) -> Execution:
    """Returns the execution with GPUs, workers and packs chosen.

    By default each worker has a GPU for itself, since processes that share one take turns, and trains as many trials together as
    `pack_size` says. Trials get no GPU if there is none, or if all of them are set to train on the CPU. A cluster may grow, so
    the number of packs at once stays open there unless the user limits it.

    Raises:
        StudyError: no node has the resources that one worker asks for.
    """
    cpus = execution.cpus_per_trial
    share = execution.gpus_per_trial
    gpus = sum(int(node.resources.get("GPU", 0)) for node in nodes)
    if share is None:
        share = 1.0 if gpus and not plan.needs_no_gpu else 0.0
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
    pack = execution.pack or (pack_size(plan, min(workers or fitting, fitting)) if share else 1)
    return execution.model_copy(update={"gpus_per_trial": share, "workers": workers, "pack": pack})


def pack_size(plan: Plan, workers: int) -> int:
    """How many trials a GPU trains together by default.

    As many as the GPU trains for hardly more than one; fewer, so that each of the workers has a pack, and that a sampler learns
    from earlier trials.
    """
    most = [
        LANES_PER_GPU // plan.lanes,
        -(-plan.trial_count // workers),
        max(group.trials for group in plan.groups),
    ]
    drawn = [group.trials for group in plan.groups if group.distributions]
    if drawn and plan.sampler != "random":
        most.append(max(drawn) // BATCHES)
    return max(1, min(most))
