"""Models, one per file, and lanes of any torch module.

Each file exposes `Settings` and `build(settings, shape, outputs) -> Model`, with the shape of a picture (channels,
height, width) and the number of outputs. Inputs are rows of features, see `study.contracts.Dataset`.

A model need not be written as functions of stacked parameters. `StackedModule` makes lanes of any `nn.Module`:

    def build(settings: Settings, shape: Shape, outputs: int) -> StackedModule:
        return StackedModule(lambda: nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), outputs)), shape)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from study.contracts import INITIAL_WEIGHTS, HiddenLayer, Shape
from study.errors import StudyError, first_line
from study.lanes import Tensors, generator

TRIED_IMAGES = 2
"""Black pictures that a new module must be able to read."""


class StackedModule:
    """Lanes of a torch module, by `torch.func.vmap`.

    All optimizers, interventions and diagnostics work with it. It is differentiated by autograd on whole images, so it is slower
    than a model that is written for lanes: of the default `cnn` on a CPU, see `study/docs/performance.md`.

    The module maps pictures [image, channel, height, width], with values by `training/pixels`, to logits [image, output].
    Only parameters may differ between lanes and change in training: buffers, as those of batch normalisation, and dropout are
    refused. Its initial weights may depend on torch's random numbers only; those of lane k are drawn from (seeds[k],
    purpose, task), and torch's global generator is left as it was.

    Attributes:
        shape: channels, height and width of a picture.
        hidden_layers: empty unless declared.
    """

    def __init__(
        self, factory: Callable[[], nn.Module], shape: Shape, hidden_layers: tuple[HiddenLayer, ...] = ()
    ) -> None:
        """Makes one module and tries it.

        Args:
            factory: makes a new module at each call.
            shape: channels, height and width of a picture.
            hidden_layers: by names of the module's parameters. If there are any, the module returns logits and a list of their
                activations [image, unit]. Without, units and ranks are not measured.

        Raises:
            StudyError: the module has buffers or dropout, cannot read the pictures, or differs each time it is made.
        """
        self.shape = shape
        self.hidden_layers = hidden_layers
        self._factory = factory
        self._module = self.made()
        if not isinstance(self._module, nn.Module):
            raise StudyError(f"The factory must make a torch.nn.Module, not {type(self._module).__name__}.")
        _check_layers(self._module)
        params, again = self.initial((0,)), self.initial((0,))
        if not all(torch.equal(value, again[name]) for name, value in params.items()):
            raise StudyError(
                "The module's initial weights must come from torch's random numbers alone, such as torch.nn.init."
            )
        try:
            with torch.no_grad():
                logits, hidden = self.forward(params, torch.zeros(1, TRIED_IMAGES, math.prod(shape)))
        except Exception as error:  # whatever a module of somebody's own raises
            channels, height, width = shape
            raise StudyError(
                f"The module fails on pictures of {channels} x {height} x {width} (channels, height, width): {first_line(error)}."
            ) from None
        if not isinstance(logits, Tensor) or logits.dim() != 3 or len(hidden) != len(hidden_layers):
            raise StudyError(
                f"The module must return logits [image, output]{_and_activations(len(hidden_layers))}, not something else."
            )

    @property
    def parameter_count(self) -> int:
        """Number of parameters of one lane."""
        return sum(param.numel() for param in self._module.parameters())

    def made(self, seed: int = 0, purpose: str = INITIAL_WEIGHTS, task: int = 0) -> nn.Module:
        """A new module, with the weights of (seed, purpose, task)."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(generator(seed, purpose, task).initial_seed())
            return self._factory()

    def initial(self, seeds: tuple[int, ...], purpose: str = INITIAL_WEIGHTS, task: int = 0) -> Tensors:
        """Initial parameters on the CPU, [lane, ...].

        They have the module's names. Lane k is a function of (seeds[k], purpose, task) alone.
        """
        params, _ = stack_module_state([self.made(seed, purpose, task) for seed in seeds])
        return {name: value.detach() for name, value in params.items()}

    def forward(self, params: Tensors, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and the activations of the declared hidden layers.

        Args:
            params: [lane, ...].
            inputs: [lane, batch, feature], or [1, batch, feature] if all lanes have the same.

        Returns:
            Logits [lane, batch, output], and the output of each declared hidden layer, [lane, batch, unit].
        """
        lanes = len(next(iter(params.values())))
        pictures = inputs.unflatten(2, self.shape).expand(lanes, -1, -1, -1, -1)
        outputs = vmap(lambda own, images: functional_call(self._module, own, (images,)))(params, pictures)
        if not self.hidden_layers:
            return outputs, []
        logits, hidden = outputs
        return logits, list(hidden)


def _and_activations(count: int) -> str:
    return f" and a list of {count} activations [image, unit], one for each declared hidden layer" if count else ""


def _check_layers(module: nn.Module) -> None:
    """Raises StudyError if a layer cannot be one of many lanes."""
    for name, layer in module.named_modules():
        own = f"{type(layer).__name__} {name!r}" if name else type(layer).__name__
        if next(layer.buffers(recurse=False), None) is not None or isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise StudyError(
                f"The module's {own} keeps buffers or mixes the images of a minibatch, which lanes cannot; use a layer without, "
                f"such as LayerNorm or GroupNorm."
            )
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            raise StudyError(
                f"The module's {own} draws random numbers in each step, which lanes cannot repeat; leave it out."
            )
    if next(module.parameters(), None) is None:
        raise StudyError("The module has no parameters to train.")
