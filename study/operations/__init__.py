"""Operations: changes of a network for a probe.

A file exposes `Settings` and `build(settings) -> Sequence[Operation]`. At a boundary the network of each lane is copied, an
operation changes the copy, and the copy is trained on the next task as all others are: see `study.training.probes`. So what
differs afterwards is the operation's doing.

| operation | what it changes | what stays the same |
|---|---|---|
| `layer_rescaling` | the sharpness | the function, the total norm |
| `norm_rescaling` | the total norm | the function, and the sharpness if it can be kept |
| `idle_units` | units that are dead on the sample | the function on the sample, and all other units |
| `unit_permutation` | the order of the hidden units | the function, and everything that training does, to rounding |
| `random_displacement` | the weights, as far as `layer_rescaling` moves them | the length of the displacement |
| `fresh_weights` | everything | the distribution of initial weights |
"""

from study.contracts import HiddenLayer
from study.errors import StudyError


def check_units(layers: tuple[HiddenLayer, ...]) -> None:
    """Raises StudyError if a network has no hidden layers."""
    if not layers:
        raise StudyError("it changes hidden units, but this network declares none; choose another, or leave it out.")
