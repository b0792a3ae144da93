"""Fully connected network with ReLU, all lanes as one stack.

Layer i maps `x` to `W_i x + b_i`. Weights and biases start uniform within `1/sqrt(fan_in)` of zero, as torch.nn.Linear's do.

The network knows its own gradient (backpropagation, Rumelhart, Hinton and Williams 1986). With h_i what enters layer i, z_i
what leaves it, p the softmax of the last z and y the label as a unit vector, the errors are

    d_last = (p - y) / batch size,      d_(i-1) = W_i^T d_i where h_i > 0, and 0 elsewhere,

and the gradient of layer i is the outer product of d_i and h_i: see `study.models._outer_products`. Inside, the image is the last
axis, [lane, unit, batch]: with weights [lane, out, in] this is the order in which the matrix products are fastest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from study.config import Listed, StrictSettings
from study.contracts import Evaluation, Gradient, HiddenLayer
from study.gradients import DenseGradient, MinibatchGradient
from study.lanes import Tensors, generator
from study.models._outer_products import OuterProduct, OuterProducts, Signal

WIDEST_FACTORED_BATCH = 128
"""Images up to which a gradient stays an outer product; a wider minibatch has it written out, which is cheaper then."""


class Settings(StrictSettings):
    """Shape of the network."""

    widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Listed] = Field(
        (100, 100),
        description="Units of each hidden layer, from input to output; an empty list is a linear classifier.",
    )


@dataclass(frozen=True)
class MLP:
    """The network as functions of its parameters `i/weight` [lane, out, in] and `i/bias` [lane, out]."""

    sizes: tuple[int, ...]

    @property
    def depth(self) -> int:
        """Number of layers, the last included."""
        return len(self.sizes) - 1

    @property
    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        """Layer i feeds hidden layer i, and layer i + 1 reads it."""
        return tuple(HiddenLayer((f"{i}/weight", f"{i}/bias"), f"{i + 1}/weight") for i in range(self.depth - 1))

    def initial(self, seeds: tuple[int, ...]) -> Tensors:
        """Initial parameters, lane k drawn from (seeds[k], "initial weights")."""
        lanes = [self._initial_lane(generator(seed, "initial weights")) for seed in seeds]
        return {name: torch.stack([lane[name] for lane in lanes]) for name in lanes[0]}

    def _initial_lane(self, draw: torch.Generator) -> Tensors:
        params = {}
        for i, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            bound = 1 / math.sqrt(fan_in)
            params[f"{i}/weight"] = torch.empty(fan_in, fan_out).uniform_(-bound, bound, generator=draw).T
            params[f"{i}/bias"] = torch.empty(fan_out).uniform_(-bound, bound, generator=draw)
        return params

    def forward(self, params: Tensors, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [lane, batch, output] and the hidden activations, each [lane, batch, unit]."""
        hidden: list[Tensor] = []
        signal = inputs.mT
        for i in range(self.depth):
            if i:
                signal = signal.relu()
                hidden.append(signal.mT)
            signal = layer(params, i, signal)
        return signal.mT, hidden

    def gradient_function(self, inputs: Tensor, labels: Tensor) -> BackpropagatedGradient:
        """The gradient of a minibatch's mean cross-entropy, by the equations of this module."""
        return BackpropagatedGradient(self, inputs, labels)

    def take_features(self, params: Tensors, features: Tensor) -> Tensors:
        """Those columns of the first weight, and the rest as it is."""
        return {
            name: value.gather(2, _columns(features, value)) if name == "0/weight" else value
            for name, value in params.items()
        }

    def put_features(self, params: Tensors, features: Tensor, taken: Tensors) -> Tensors:
        """The columns of the first weight put back."""
        return {
            name: value.scatter(2, _columns(features, value), taken[name]) if name == "0/weight" else taken[name]
            for name, value in params.items()
        }

    def layers(self, params: Tensors, lane: int) -> list[nn.Module]:
        """Linear layers with ReLU between them."""
        found: list[nn.Module] = []
        for i in range(self.depth):
            weight, bias = params[f"{i}/weight"][lane], params[f"{i}/bias"][lane]
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.load_state_dict({"weight": weight, "bias": bias})
            found += [nn.ReLU(), linear] if i else [linear]
        return found


def _columns(features: Tensor, weight: Tensor) -> Tensor:
    return features.unsqueeze(1).expand(-1, weight.shape[1], -1)


def layer(params: Tensors, i: int, signal: Tensor) -> Tensor:
    """`W_i h + b_i`, [lane, out, image], of h [lane, in, image]; one h for all lanes may be [1, in, image]."""
    weight, bias = params[f"{i}/weight"], params[f"{i}/bias"]
    if signal.shape[0] == weight.shape[0]:
        return torch.baddbmm(bias.unsqueeze(2), weight, signal)
    return torch.addmm(bias.flatten().unsqueeze(1), weight.flatten(0, 1), signal[0]).view(*bias.shape, -1)


@dataclass(frozen=True)
class Backpropagated(Evaluation):
    """An evaluation that remembers its way.

    Attributes:
        first: what leaves the first layer, [lane, out, batch].
    """

    first: Tensor


@dataclass(frozen=True)
class BackpropagatedGradient(MinibatchGradient):
    """Gradient of the mean cross-entropy of a minibatch, without interventions, by the equations of this module."""

    model: MLP

    def __call__(self, params: Tensors) -> Backpropagated:
        """The evaluation at `params`."""
        return self._evaluated(params)

    def displaced(self, params: Tensors, seen: Evaluation, scale: Tensor) -> Evaluation:
        """The evaluation at `params + scale * seen.gradient`; as outer products, the displaced weights are never written."""
        if isinstance(seen, Backpropagated) and isinstance(seen.gradient, OuterProducts):
            return self._evaluated(params, _Displacement(seen.first, seen.gradient.layers, scale))
        return super().displaced(params, seen, scale)

    @cached_property
    def _pictures(self) -> Signal:
        return Signal(self.inputs.mT)

    def _evaluated(self, params: Tensors, displacement: _Displacement | None = None) -> Backpropagated:
        """Forward through all layers, and the errors back."""
        signals = [self._pictures]
        outputs: list[Tensor] = []
        for i in range(self.model.depth):
            if i:
                signals.append(
                    Signal(outputs[-1].relu() if i == 1 else outputs[-1].relu_())
                )  # the first is asked for again
            if displacement is None:
                outputs.append(layer(params, i, signals[i].values))
            else:
                output = displacement.first if i == 0 else layer(params, i, signals[i].values)
                outputs.append(output + displacement.layers[i].displaces(signals[i], displacement.scale))
        errors = [self._last_errors(outputs[-1])]
        for i in reversed(range(1, self.model.depth)):
            back = torch.bmm(params[f"{i}/weight"].mT, errors[0])
            if displacement is not None:
                back += displacement.layers[i].displaces_back(errors[0], displacement.scale)
            errors.insert(0, _where_positive(back, signals[i].values))
        return Backpropagated(self._gradient(signals, errors), outputs[-1].mT, outputs[0])

    def _last_errors(self, logits: Tensor) -> Tensor:
        """(softmax - unit vector of the label) / batch size, [lane, output, batch]."""
        errors = logits.softmax(dim=1)
        labels = self.labels.unsqueeze(1)
        errors.scatter_add_(1, labels, errors.new_full(labels.shape, -1))
        return errors.mul_(1 / labels.shape[2])

    def _gradient(self, signals: list[Signal], errors: list[Tensor]) -> Gradient:
        layers = zip(signals, errors, strict=True)
        products = OuterProducts(
            tuple(OuterProduct(f"{i}/weight", f"{i}/bias", signal, error) for i, (signal, error) in enumerate(layers))
        )
        return products if self.labels.shape[1] <= WIDEST_FACTORED_BATCH else DenseGradient(products.tensors())


def _where_positive(errors: Tensor, signal: Tensor) -> Tensor:
    """ReLU's part of backpropagation, in place: the errors where `signal` is above 0, and 0 elsewhere."""
    torch.ops.aten.threshold_backward.grad_input(errors, signal, 0, grad_input=errors)
    return errors


@dataclass(frozen=True)
class _Displacement:
    """Weights moved along a gradient: what left the first layer before, the gradient, and how far along it [lane]."""

    first: Tensor
    layers: tuple[OuterProduct, ...]
    scale: Tensor


def build(settings: Settings, feature_count: int, output_count: int) -> MLP:
    """The network with the given number of inputs and outputs."""
    return MLP((feature_count, *settings.widths, output_count))
