"""Every logged quantity: name, unit and a one-sentence definition.

A name that is not declared here is not logged. `study/docs/metrics.md` is made from this module by
`python -m study.reference metrics`, and a test compares the two.
"""

import math
import re
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True)
class Quantity:
    """One logged number.

    Attributes:
        name: the slash name, the same in the record, in MLflow and in data frames.
        unit: "share" stands for a number from 0 to 1.
        definition: one sentence.
        by_lane: whether the value of each lane is logged beside the mean over the lanes.
        needs_validation: whether it exists only if validation images are held out.
        by_layer: whether every layer has its own value, named by `layer_name`.
        source: of the formula.
        on_test: whether it is computed from test images; no search may read it.
        is_of_one_task: whether it is about one task alone; others are about the tasks so far.
        may_lack: whether a finished trial may lack it, such as one of an earlier version of the study.
    """

    name: str
    unit: str
    definition: str
    by_lane: bool = False
    needs_validation: bool = False
    by_layer: bool = False
    source: str = ""
    on_test: bool = False
    is_of_one_task: bool = False
    may_lack: bool = False


TEST_ACCURACY: Final = "accuracy/test"
VALIDATION_ACCURACY: Final = "accuracy/validation"
ONLINE_ACCURACY: Final = "accuracy/online"
ONLINE_LOSS: Final = "loss/online"
OBJECTIVE: Final = "objective"
DECLINE: Final = "decline"
DECLINE_AFTER_WARMUP: Final = "decline_after_warmup"
LATE_ACCURACY: Final = "late_accuracy"
GRADIENT_EVALUATIONS: Final = "gradient_evaluations"
TRAINING_SECONDS: Final = "seconds/training"
EVALUATION_SECONDS: Final = "seconds/evaluation"
DIAGNOSTICS_SECONDS: Final = "seconds/diagnostics"
DIVERGED_LANES: Final = "lanes/diverged"
HESSIAN_EIGENVALUE: Final = "hessian/largest_eigenvalue"
HESSIAN_TRACE: Final = "hessian/trace"
HESSIAN_TRACE_ERROR: Final = "hessian/trace_error"
SAM_SHARPNESS: Final = "sharpness/sam"
ADAPTIVE_SHARPNESS: Final = "sharpness/adaptive"
GRADIENT_NORM: Final = "gradient/norm"
GRADIENT_RELIABILITY: Final = "gradient/reliability"
DEAD_UNITS: Final = "units/dead"
DORMANT_UNITS: Final = "units/dormant"
EFFECTIVE_RANK: Final = "rank/effective"
STABLE_RANK: Final = "rank/stable"
SRANK: Final = "rank/srank"
WEIGHT_NORM: Final = "weights/norm"
WEIGHT_DISTANCE: Final = "weights/distance"
FIRST_TASK_ACCURACY: Final = "accuracy/first_task"
EARLIER_TASKS_ACCURACY: Final = "accuracy/earlier_tasks"
FINISHED_TRIALS: Final = "trials/finished"
STOPPED_TRIALS: Final = "trials/stopped"
FAILED_TRIALS: Final = "trials/failed"
BLEND: Final = "rule/blend"
RADIUS: Final = "rule/radius"
PENALTY: Final = "rule/penalty"
BEST_OBJECTIVE: Final = "best_objective"
DECLINE_AFTER_WARMUP_TEST: Final = "summary/decline_after_warmup_test"
CHOSEN_OBJECTIVE: Final = "summary/chosen_objective"
SECOND_OBJECTIVE: Final = "summary/second_objective"

PROBE_ONLINE_ACCURACY: Final = "probe/accuracy_online"
PROBE_ONLINE_LOSS: Final = "probe/loss_online"
PROBE_TEST_ACCURACY: Final = "probe/accuracy_test"
PROBE_STEPS: Final = "probe/steps_to_90"
FUNCTION_CHANGE: Final = "probe/function_change"
DISPLACEMENT: Final = "probe/displacement"

UNTOUCHED: Final = "none"
"""The operation of a probe that changes nothing."""

WELL_LEARNT: Final = 0.9
"""Online accuracy that `probe/steps_to_90` waits for."""

PER_TASK: Final = (
    Quantity(
        TEST_ACCURACY,
        "share",
        "Share of the current task's test images classified correctly after training on the task; never read by a search.",
        by_lane=True,
        on_test=True,
        is_of_one_task=True,
    ),
    Quantity(
        VALIDATION_ACCURACY,
        "share",
        "Share of the current task's held-out training images classified correctly after training on the task.",
        by_lane=True,
        needs_validation=True,
        is_of_one_task=True,
    ),
    Quantity(
        ONLINE_ACCURACY,
        "share",
        "Share of the task's training images classified correctly before the update on them.",
        by_lane=True,
        is_of_one_task=True,
    ),
    Quantity(
        ONLINE_LOSS,
        "nats",
        "Cross-entropy of the task's training images before the update on them, averaged over the task.",
        by_lane=True,
        is_of_one_task=True,
    ),
    Quantity(
        OBJECTIVE,
        "share",
        "Validation accuracy averaged over the tasks so far and over the lanes: what a search maximises unless told otherwise.",
        needs_validation=True,
    ),
    Quantity(
        DECLINE,
        "share",
        "Validation accuracy of the first tenth of the tasks so far minus that of the last tenth, averaged over the lanes.",
        needs_validation=True,
    ),
    Quantity(
        DECLINE_AFTER_WARMUP,
        "share",
        "Validation accuracy of a tenth of the tasks so far, from half a tenth on (tasks 5 to 14 of 100), minus that of the last "
        "tenth, averaged over the lanes.",
        needs_validation=True,
    ),
    Quantity(
        LATE_ACCURACY,
        "share",
        "Validation accuracy of the last tenth of the tasks so far, averaged over the lanes.",
        needs_validation=True,
    ),
    Quantity(
        GRADIENT_EVALUATIONS,
        "count",
        "Minibatch gradients computed so far in one lane; a Hessian-vector product counts as one.",
    ),
    Quantity(TRAINING_SECONDS, "s", "Wall time of training on the task, all lanes together.", is_of_one_task=True),
    Quantity(
        EVALUATION_SECONDS, "s", "Wall time of evaluating after the task, all lanes together.", is_of_one_task=True
    ),
    Quantity(
        DIAGNOSTICS_SECONDS,
        "s",
        "Wall time of the diagnostics before and after the task and of its probes, all lanes together; 0 when none is due.",
        is_of_one_task=True,
    ),
    Quantity(
        DIVERGED_LANES,
        "count",
        "Lanes whose loss or weights became non-finite; then frozen, at chance accuracy and the loss of a uniform guess.",
    ),
)

DIAGNOSTICS: Final = (
    Quantity(
        HESSIAN_EIGENVALUE,
        "nats / weight^2",
        "Largest eigenvalue of the Hessian H of the sample's loss; power iteration with its last step, to a residual of 0.1 %.",
        source="Knyazev 2001",
    ),
    Quantity(
        HESSIAN_TRACE,
        "nats / weight^2",
        "Trace of H, the mean of z.H z over random signs z.",
        source="Hutchinson 1990",
    ),
    Quantity(
        HESSIAN_TRACE_ERROR,
        "nats / weight^2",
        "Standard error of that mean over its random signs.",
        source="Hutchinson 1990",
    ),
    Quantity(
        SAM_SHARPNESS,
        "nats",
        "L(w + rho g / |g|) - L(w) of the sample's loss, with one rho (`diagnostics/rho`) for all methods.",
        source="Foret et al. 2021, arXiv 2010.01412",
    ),
    Quantity(GRADIENT_NORM, "nats / weight", "L2 norm of the gradient g of the sample's loss over all weights."),
    Quantity(
        DEAD_UNITS,
        "share",
        "Share of a hidden layer's units that pass no gradient on any image of the sample: positive on none with ReLU; 0 on all "
        "with GELU or CReLU; 1 or -1 on all with tanh; never with leaky ReLU or deep Fourier features.",
        by_layer=True,
    ),
    Quantity(
        DORMANT_UNITS,
        "share",
        "Share of a hidden layer's units whose mean absolute activation is at most tau (`diagnostics/dormant_below`) times the "
        "layer's; of units with two outputs, the sum of both. A saturated unit of tanh is not dormant.",
        by_layer=True,
        source="ReDo, Sokar et al. 2023, arXiv 2302.12902",
    ),
    Quantity(
        EFFECTIVE_RANK,
        "1",
        "Exponential of the entropy of the normalised singular values of A, the last hidden layer's activations on the sample.",
        source="Roy and Vetterli 2007",
    ),
    Quantity(
        STABLE_RANK,
        "1",
        "Stable rank |A|_F^2 / |A|_2^2: squared singular values in units of the largest.",
        source="Rudelson and Vershynin 2007",
    ),
    Quantity(
        SRANK,
        "count",
        "Number of A's largest singular values that make up 99 % of the sum of all.",
        source="Kumar et al. 2021, arXiv 2010.14498",
    ),
    Quantity(WEIGHT_NORM, "weight", "L2 norm of a layer's weights and biases.", by_layer=True),
    Quantity(
        WEIGHT_DISTANCE,
        "weight",
        "L2 norm of a layer's weights and biases minus their initial values.",
        by_layer=True,
    ),
    Quantity(
        FIRST_TASK_ACCURACY,
        "share",
        "Accuracy on the first task's test images, or a sample of them, with the current weights.",
        on_test=True,
    ),
    Quantity(
        EARLIER_TASKS_ACCURACY,
        "share",
        "Accuracy on the test images, or a sample of them, of the tasks before the current one, averaged over these.",
        on_test=True,
    ),
)
"""Diagnostics of the network after the tasks that `study.config.Diagnostics` chooses; none affects training.

Unless the definition says otherwise, they are computed on a fixed sample of the task's training images. The values of each lane
are in `tables/diagnostics.csv`."""

ONSET_PREFIX: Final = "onset/"


def onset_name(name: str) -> str:
    """Name of a diagnostic at a task's onset: `onset/gradient/norm`."""
    return ONSET_PREFIX + name


def _at_onset(*names: str) -> tuple[Quantity, ...]:
    """The quantities of `DIAGNOSTICS` with these names, at the onset."""
    known = {quantity.name: quantity for quantity in DIAGNOSTICS}
    return tuple(
        replace(
            known[name],
            name=onset_name(name),
            definition=f"The `{name}` of the network before its first step on the task, on a sample of that task's images.",
        )
        for name in names
    )


ONSET: Final = (
    *_at_onset(HESSIAN_EIGENVALUE, HESSIAN_TRACE, HESSIAN_TRACE_ERROR, SAM_SHARPNESS),
    Quantity(
        onset_name(ADAPTIVE_SHARPNESS),
        "nats",
        "L(w + rho T^2 g / |T g|) - L(w) of the sample's loss before the first step on the task, with T = |w| for each weight "
        "and bias and one rho (`diagnostics/rho_adaptive`) for all methods: the step of ASAM without its eta, so that rescaling "
        "the layers of a ReLU network does not change it.",
        source="Kwon et al. 2021, arXiv 2102.11600",
    ),
    *_at_onset(GRADIENT_NORM),
    Quantity(
        onset_name(GRADIENT_RELIABILITY),
        "share",
        "Ratio |mean of g_b|^2 / mean of |g_b|^2 before the first step on the task, with g_b the gradients of the sample's "
        "minibatches, as large as in training: 1 if all are equal, 1 / n if n of them are orthogonal; unknown of fewer than two.",
    ),
    *_at_onset(DEAD_UNITS, DORMANT_UNITS, EFFECTIVE_RANK, STABLE_RANK, SRANK, WEIGHT_NORM),
)
"""Diagnostics of the network at a task's onset: after the interventions of the boundary, before the first step.

They are computed on the same fixed sample of the new task's training images as those of `DIAGNOSTICS` after it, before the tasks
that `diagnostics/onset_every` chooses. None affects training."""

ALL_DIAGNOSTICS: Final = DIAGNOSTICS + ONSET

PROBES: Final = (
    Quantity(
        PROBE_ONLINE_ACCURACY,
        "share",
        "Share of the task's training images classified correctly before the update on them, by a copy of the network that an "
        "operation has changed and that is trained on the task; of each operation and learning rate, as "
        "`probe/accuracy_online/OPERATION/lr_0.01`, the mean over the lanes.",
    ),
    Quantity(PROBE_ONLINE_LOSS, "nats", "Cross-entropy of the same images before the update on them."),
    Quantity(
        PROBE_TEST_ACCURACY,
        "share",
        "Share of the task's test images that the trained copy classifies correctly.",
        on_test=True,
    ),
    Quantity(
        PROBE_STEPS,
        "count",
        "Steps of the copy until the online accuracy of a block of 32 steps is at least 0.9; all steps if it never is.",
    ),
    Quantity(
        FUNCTION_CHANGE, "1", "Largest change of a logit by the operation, over the images of the diagnostics' sample."
    ),
    Quantity(DISPLACEMENT, "weight", "L2 norm of the change of all weights by the operation."),
)
"""Of probes, see `study.training.probes`; the values of each lane are in `tables/probes.csv`."""

SUMMARY: Final = (
    Quantity(
        "summary/objective",
        "share",
        "Validation accuracy averaged over all tasks and lanes; only of a finished trial.",
        needs_validation=True,
    ),
    Quantity(
        "summary/accuracy_validation_first_tenth",
        "share",
        "Validation accuracy averaged over the first tenth of the tasks (rounded up) and over the lanes.",
        needs_validation=True,
    ),
    Quantity(
        "summary/accuracy_validation_last_tenth",
        "share",
        "Validation accuracy averaged over the last tenth of the tasks (rounded up) and over the lanes.",
        needs_validation=True,
    ),
    Quantity("summary/accuracy_test", "share", "Test accuracy averaged over all tasks and lanes.", on_test=True),
    Quantity(
        "summary/accuracy_test_first_tenth",
        "share",
        "Test accuracy averaged over the first tenth of the tasks (rounded up) and over the lanes.",
        on_test=True,
    ),
    Quantity(
        "summary/accuracy_test_last_tenth",
        "share",
        "Test accuracy averaged over the last tenth of the tasks (rounded up) and over the lanes.",
        on_test=True,
    ),
    Quantity(
        "summary/decline_test",
        "share",
        "Test accuracy of the first tenth of the tasks minus that of the last tenth, averaged over the lanes.",
        on_test=True,
    ),
    Quantity(
        DECLINE_AFTER_WARMUP_TEST,
        "share",
        "Test accuracy of a tenth of the tasks, from half a tenth on (tasks 5 to 14 of 100), minus that of the last tenth, "
        "averaged over the lanes.",
        on_test=True,
        may_lack=True,
    ),
    Quantity(
        CHOSEN_OBJECTIVE,
        "1",
        "What the search of this sweep optimised (`--objective`), with the unit of that quantity; only if it is not `objective`.",
        may_lack=True,
    ),
    Quantity(
        SECOND_OBJECTIVE,
        "1",
        "The second of two quantities that the search optimised, with the unit of that quantity.",
        may_lack=True,
    ),
    Quantity(
        "summary/gradient_evaluations",
        "count",
        "Minibatch gradients computed in one lane over the whole task sequence.",
    ),
    Quantity(
        "summary/seconds",
        "s",
        "Wall time of training and evaluation over the whole task sequence, all lanes together.",
    ),
    Quantity("summary/lanes_diverged", "count", "Lanes that had diverged by the end of the task sequence."),
)

SWEEP: Final = (
    Quantity(FINISHED_TRIALS, "count", "Trials of the sweep that ran through their task sequence."),
    Quantity(STOPPED_TRIALS, "count", "Trials that the scheduler stopped early."),
    Quantity(FAILED_TRIALS, "count", "Trials that failed for good."),
    Quantity(
        BEST_OBJECTIVE,
        "share",
        "Best objective among the finished trials of one method in one scenario, named `best_objective/SCENARIO-METHOD`.",
    ),
)

RULE: Final = (
    Quantity(
        BLEND,
        "1",
        "Weight a of the uphill gradient in G = (1 - a) g(w) + a g(w + r g/|g|): 0 for SGD, 1 for SAM, lambda / r for GNP.",
    ),
    Quantity(RADIUS, "length in weight space", "Length r of the uphill step; 0 for SGD and for GNP's exact penalty."),
    Quantity(PENALTY, "1", "Weight lambda of GNP's exact penalty, which has no blend."),
)
"""Logged as parameters of a trial, next to its settings."""

QUANTITIES: Final = {
    quantity.name: quantity for quantity in PER_TASK + ALL_DIAGNOSTICS + PROBES + SUMMARY + SWEEP + RULE
}

SUMMED: Final = frozenset(
    (DIVERGED_LANES, TRAINING_SECONDS, EVALUATION_SECONDS, "summary/lanes_diverged", "summary/seconds")
)
"""Numbers of trials that add up when trials of one configuration are put together; of all others the mean is taken."""


def lane_name(name: str, lane: int) -> str:
    """Name of one lane's value, such as `accuracy/test/lane_3`."""
    return f"{name}/lane_{lane}"


def layer_name(name: str, layer: str) -> str:
    """Name of one layer's value, such as `units/dead/layer_0`."""
    return f"{name}/layer_{layer}"


def arm_name(operation: str, level: float | None, undone: bool) -> str:
    """Name of copies that were treated alike.

    Such as `layer_rescaling 0.25 undone`.
    """
    return operation + ("" if level is None else f" {level:g}") + (" undone" if undone else "")


def probe_metric(arm: str, lr: float) -> str:
    """Name of the mean online accuracy of copies.

    Such as `probe/accuracy_online/layer_rescaling_0.25_undone/lr_0.01`.
    """
    return f"{PROBE_ONLINE_ACCURACY}/{re.sub(r'[^A-Za-z0-9.-]+', '_', arm)}/lr_{lr:g}"


def tenth(tasks: int) -> int:
    """A tenth of a number of tasks, rounded up."""
    return math.ceil(tasks / 10)


def after_warmup(tasks: int) -> slice:
    """The early tasks that a decline after warm-up starts from.

    With k a tenth of the tasks, those from floor(k / 2) to floor(k / 2) + k - 1: 5 to 14 of 100. The first tasks, which a network
    that is still warming up learns badly, are left out.
    """
    count = tenth(tasks)
    return slice(count // 2, count // 2 + count)
