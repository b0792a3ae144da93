"""Interventions, one per file; by default a trial has none.

Each file exposes `Settings` and `build(settings, seeds, device) -> Intervention`. They are configured by name,
`--set interventions/l2_init/strength=0.001`, and combine with every optimizer. `study/docs/remedies.md` compares them.

An intervention that is a dataclass, with its settings as tensors [lane] and the seeds, if it needs them, in a field `seeds`, is
trained in one stack with those of other trials, see `study.training.pack`.
"""

from torch import Tensor


def readable(tensor: Tensor) -> bool:
    """Whether a step may read values, to save time.

    On a GPU nobody may wait for them, and steps are recorded. What is read must change no result.
    """
    return not tensor.is_cuda


def idle(mask: Tensor) -> bool:
    """Whether nothing is to be done, as far as readable."""
    return readable(mask) and not mask.any()
