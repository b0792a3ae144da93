"""Convolutional network with ReLU, all lanes as one stack.

With x the picture, * a convolution without padding and pool the largest of each square of pixels, each in steps of its size,

    h_0 = x,      h_(i+1) = max(pool(W_i * h_i + b_i), 0),

and the last maps are the features of a fully connected network, as in `study.models.mlp`. By default it is the small network of
L2 Init (Kumar, Marklund and Van Roy 2023, arXiv 2308.11958). Weights and biases start uniform within 1/sqrt(fan_in) of zero, as
in torch.nn.Conv2d and torch.nn.Linear.

A unit of a convolutional layer is a feature map. Its activation on an image is the mean of the map after pooling, so a unit is
dead or dormant if its whole map is. Weights have the unit that they read as their last axis, [lane, out, row, column, in], and
after the last map [lane, out, position, in].

On a CPU each lane has convolutions of its own, and the network knows its own gradient by the equations of `study.models.mlp`:
other ways are slower, see `study/docs/performance.md`. On a GPU all lanes are one matrix
product over unfolded pictures, differentiated by autograd.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d

from study.config import Listed, StrictSettings
from study.contracts import Evaluation, GradientFunction, Shape
from study.errors import StudyError
from study.gradients import DenseGradient, MinibatchGradient
from study.lanes import Tensors
from study.models._layers import Layered
from study.models.mlp import last_errors, layer, where_positive

Sizes = tuple[Annotated[int, Field(ge=1, le=2**31)], ...]

CONVOLUTION = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)
"""Stride, padding and so on, as torch's operators take them: none."""


class Settings(StrictSettings):
    """Shape of the network."""

    channels: Annotated[Sizes, Listed] = Field(
        (16, 16), min_length=1, max_length=1000, description="Feature maps of each convolutional layer."
    )
    kernels: Annotated[Sizes, Listed] = Field(
        (5, 5), max_length=1000, description="Height and width of the kernel of each convolutional layer, in pixels."
    )
    pools: Annotated[Sizes, Listed] = Field(
        (2, 2),
        max_length=1000,
        description="Height and width of the pooled squares of each convolutional layer; 1: none.",
    )
    widths: Annotated[Sizes, Listed] = Field(
        (100, 100),
        max_length=1000,
        description="Units of each fully connected hidden layer, from input to output; an empty list is a linear classifier.",
    )

    @model_validator(mode="after")
    def _are_as_many(self) -> Settings:
        layers = len(self.channels)
        for name in ("kernels", "pools"):
            if len(getattr(self, name)) != layers:
                raise StudyError(
                    f"{name} must have as many numbers as channels, {layers}, one for each convolutional layer."
                )
        return self


@dataclass(frozen=True)
class Stage:
    """A convolutional layer and its pooling.

    Attributes:
        channels_in, channels: maps that it reads, and its own.
        kernel, pool: height and width.
        height, width: of its maps after pooling.
    """

    channels_in: int
    channels: int
    kernel: int
    pool: int
    height: int
    width: int

    @property
    def fan_in(self) -> int:
        """Weights of one map."""
        return self.channels_in * self.kernel**2


@dataclass(frozen=True)
class CNN(Layered):
    """The network as functions of its parameters.

    They are `i/weight` and `i/bias` for each layer i, the convolutional ones first; see the module for their axes.

    Attributes:
        shape: channels, height and width of a picture.
        stages: the convolutional layers.
        sizes: number of features after them, units of each fully connected hidden layer, number of outputs.
    """

    shape: Shape
    stages: tuple[Stage, ...]
    sizes: tuple[int, ...]

    @property
    def depth(self) -> int:
        """Number of layers, the output layer included."""
        return len(self.stages) + len(self.sizes) - 1

    @property
    def parameter_count(self) -> int:
        """Number of weights and biases of one lane."""
        convolutional = sum((stage.fan_in + 1) * stage.channels for stage in self.stages)
        return convolutional + sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(self.sizes))

    def _initial_lane(self, draw: torch.Generator) -> Tensors:
        params = {}
        for i, (fan_in, shape) in enumerate(self._weight_shapes()):
            bound = 1 / math.sqrt(fan_in)
            params[f"{i}/weight"] = torch.empty(shape).uniform_(-bound, bound, generator=draw)
            params[f"{i}/bias"] = torch.empty(shape[0]).uniform_(-bound, bound, generator=draw)
        return params

    def _weight_shapes(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Fan-in and shape of the weight of each layer, in one lane."""
        for stage in self.stages:
            yield stage.fan_in, (stage.channels, stage.kernel, stage.kernel, stage.channels_in)
        last = self.stages[-1]
        for i, (fan_in, fan_out) in enumerate(pairwise(self.sizes)):
            yield fan_in, ((fan_out, fan_in) if i else (fan_out, last.height * last.width, last.channels))

    def forward(self, params: Tensors, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and the activations of the hidden layers.

        Args:
            params: [lane, ...].
            inputs: [lane, batch, feature], or [1, batch, feature] if all lanes have the same.

        Returns:
            Logits [lane, batch, output], and for each hidden layer its activations [lane, batch, unit].
        """
        pictures = inputs.unflatten(2, self.shape).expand(len(params["0/weight"]), -1, -1, -1, -1)
        maps = (self._unfolded if at_once(inputs) else self._lane_by_lane)(params, pictures)
        hidden = [each.mean(dim=(2, 3)) for each in maps]
        signal = maps[-1].flatten(2).mT  # [lane, feature, batch]
        weights = self.flat_weights(params)
        for i in range(len(self.stages), self.depth):
            if i > len(self.stages):
                signal = signal.relu()
                hidden.append(signal.mT)
            signal = layer(weights, i, signal)  # [lane, out, batch]
        return signal.mT, hidden

    def flat_weights(self, params: Tensors) -> Tensors:
        """Parameters, the weight after the maps as a matrix.

        It becomes [lane, out, feature].
        """
        name = f"{len(self.stages)}/weight"
        return params | {name: params[name].flatten(2)}

    def filters(self, params: Tensors, i: int) -> tuple[Tensor, ...]:
        """The filters of each lane, [out, in, row, column]."""
        return params[f"{i}/weight"].permute(0, 1, 4, 2, 3).unbind(0)

    def _lane_by_lane(self, params: Tensors, pictures: Tensor) -> list[Tensor]:
        """The maps of each layer, [lane, batch, row, column, map]."""
        maps: list[list[Tensor]] = []  # by layer and lane, [batch, map, row, column]
        signals: Sequence[Tensor] = pictures.unbind(0)
        for i, stage in enumerate(self.stages):
            lanes = zip(signals, self.filters(params, i), params[f"{i}/bias"].unbind(0), strict=True)
            signals = [max_pool2d(conv2d(*lane), stage.pool).relu() for lane in lanes]
            maps.append(signals)
        return [torch.stack([each.permute(0, 2, 3, 1) for each in of_layer]) for of_layer in maps]

    def _unfolded(self, params: Tensors, pictures: Tensor) -> list[Tensor]:
        """The same with one matrix product for all lanes of a layer."""
        maps: list[Tensor] = []
        signal = pictures.permute(0, 1, 3, 4, 2)  # [lane, batch, row, column, in]
        for i, stage in enumerate(self.stages):
            patches = signal.unfold(2, stage.kernel, 1).unfold(3, stage.kernel, 1)  # [..., row, column, in, k, k]
            lanes, batch, height, width = patches.shape[:4]
            rows = patches.permute(0, 1, 2, 3, 5, 6, 4).reshape(lanes, batch * height * width, stage.fan_in)
            bias, weight = params[f"{i}/bias"].unsqueeze(1), params[f"{i}/weight"].flatten(2).mT
            output = torch.baddbmm(bias, rows, weight).view(lanes * batch, height, width, stage.channels)
            pooled = max_pool2d(output.permute(0, 3, 1, 2), stage.pool).permute(0, 2, 3, 1)
            signal = pooled.relu().unflatten(0, (lanes, batch))
            maps.append(signal)
        return maps

    def gradient_function(self, inputs: Tensor, labels: Tensor) -> GradientFunction:
        """The gradient of a minibatch's mean cross-entropy."""
        return (MinibatchGradient if at_once(inputs) else LaneByLaneGradient)(self, inputs, labels)

    def layers(self, params: Tensors, lane: int) -> list[nn.Module]:
        """One lane's layers, on images as rows of features."""
        modules: list[nn.Module] = [nn.Unflatten(1, self.shape)]
        for i, stage in enumerate(self.stages):
            convolution = nn.Conv2d(stage.channels_in, stage.channels, stage.kernel)
            convolution.load_state_dict({"weight": self.filters(params, i)[lane], "bias": params[f"{i}/bias"][lane]})
            modules += [convolution, nn.MaxPool2d(stage.pool), nn.ReLU()]
        modules.append(nn.Flatten())
        for i in range(len(self.stages), self.depth):
            weight, bias = params[f"{i}/weight"][lane], params[f"{i}/bias"][lane]
            if i == len(self.stages):
                weight = weight.mT.flatten(1)  # torch flattens map after map
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.load_state_dict({"weight": weight, "bias": bias})
            modules += [linear] if i == len(self.stages) else [nn.ReLU(), linear]
        return modules


def at_once(inputs: Tensor) -> bool:
    """Whether all lanes convolve at once, as on a GPU."""
    return inputs.is_cuda


class _Convolved(NamedTuple):
    """What the gradient of one lane's layer needs.

    Attributes:
        signal: that the layer read, [batch, in, row, column].
        places: of the largest of each square.
        maps: after pooling and ReLU, [batch, map, row, column].
    """

    signal: Tensor
    places: Tensor
    maps: Tensor


def _activations(traces: list[list[_Convolved]], connected: list[Tensor]) -> list[Tensor]:
    """Activations of each hidden layer, [lane, batch, unit].

    Args:
        traces: convolutional layers of each lane.
        connected: outputs of fully connected hidden layers, [lane, unit, batch].
    """
    means = [torch.stack([stage.maps.mean(dim=(2, 3)) for stage in lanes]) for lanes in zip(*traces, strict=True)]
    return means + [signal.mT for signal in connected]


@dataclass(frozen=True)
class LaneByLaneGradient(MinibatchGradient):
    """Gradient of a minibatch's mean cross-entropy, by backpropagation.

    Convolutions of one lane after the other, fully connected layers of all lanes at once; without terms of interventions. What a
    convolution returns is not kept: lanes that write into the same memory need half the time of lanes that take new memory.
    """

    model: CNN

    def __call__(self, params: Tensors) -> Evaluation:
        """The evaluation at `params`."""
        model, weights = self.model, self.model.flat_weights(params)
        first = len(model.stages)
        gradient = {name: torch.empty_like(value) for name, value in params.items()}
        slopes = model.flat_weights(gradient)
        filters = [model.filters(params, i) for i in range(first)]
        traces = [self._convolved(params, filters, lane) for lane in range(len(self.inputs))]
        features = torch.stack([trace[-1].maps.permute(0, 2, 3, 1).flatten(1) for trace in traces])
        signals = [features.mT]  # each [lane, in, batch]
        for i in range(first, model.depth):
            output = layer(weights, i, signals[-1])  # [lane, out, batch]
            signals.append(output if i == model.depth - 1 else output.relu_())
        logits = signals.pop()
        connected = signals[1:]
        errors = last_errors(logits, self.labels)  # [lane, out, batch]
        for i in reversed(range(first, model.depth)):
            signal = signals.pop()
            torch.bmm(errors, signal.mT, out=slopes[f"{i}/weight"])
            torch.sum(errors, dim=2, out=slopes[f"{i}/bias"])
            errors = where_positive(torch.bmm(weights[f"{i}/weight"].mT, errors), signal)
        for lane, trace in enumerate(traces):
            self._convolutions(gradient, lane, trace, [each[lane] for each in filters], errors[lane])
        return Evaluation(DenseGradient(gradient), logits.mT, lambda: _activations(traces, connected))

    def _convolved(self, params: Tensors, filters: Sequence[Sequence[Tensor]], lane: int) -> list[_Convolved]:
        """The convolutional layers of one lane."""
        signal = self.inputs[lane].unflatten(1, self.model.shape)
        trace: list[_Convolved] = []
        for i, stage in enumerate(self.model.stages):
            output = conv2d(signal, filters[i][lane], params[f"{i}/bias"][lane])
            maps, places = torch.ops.aten.max_pool2d_with_indices(output, [stage.pool] * 2)
            trace.append(_Convolved(signal, places, maps.relu_()))
            signal = maps
        return trace

    def _convolutions(
        self, gradient: Tensors, lane: int, trace: list[_Convolved], filters: list[Tensor], errors: Tensor
    ) -> None:
        """Writes the gradient of one lane's convolutional layers.

        `errors` [feature, batch] are those before the last ReLU.
        """
        last = trace[-1].maps.permute(0, 2, 3, 1)  # [batch, row, column, map]
        errors = errors.mT.reshape(last.shape).permute(0, 3, 1, 2)
        for i in reversed(range(len(trace))):
            signal, places, _ = trace[i]
            # of the pooled errors, which are fewer; oneDNN would take a fifth of the layer's time for it
            torch.sum(errors, dim=(0, 2, 3), out=gradient[f"{i}/bias"][lane])
            errors = self._before_pooling(errors, places, self.model.stages[i], signal)
            back, weight, _ = torch.ops.aten.convolution_backward(
                errors, signal, filters[i], None, *CONVOLUTION, [i > 0, True, False]
            )
            gradient[f"{i}/weight"][lane] = weight.permute(0, 2, 3, 1)
            if i:
                errors = where_positive(back, signal)

    def _before_pooling(self, errors: Tensor, places: Tensor, stage: Stage, signal: Tensor) -> Tensor:
        """Errors of pooled maps at the places that they came from."""
        height, width = (size - stage.kernel + 1 for size in signal.shape[2:])
        # Of what was pooled, torch reads only the shape and the order in memory.
        pooled = errors.new_empty(len(errors), height, width, stage.channels).permute(0, 3, 1, 2)
        pool = [stage.pool] * 2
        before: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            errors, pooled, pool, pool, [0, 0], [1, 1], False, places
        )
        return before


def build(settings: Settings, shape: Shape, outputs: int) -> CNN:
    """The network for pictures of that shape.

    Raises StudyError if a kernel or a pooled square is larger than the maps that it is applied to.
    """
    channels, height, width = shape
    stages = []
    for i, (maps, kernel, pool) in enumerate(zip(settings.channels, settings.kernels, settings.pools, strict=True)):
        _check("kernels", i, kernel, (height, width), shape)
        height, width = height - kernel + 1, width - kernel + 1
        _check("pools", i, pool, (height, width), shape)
        height, width = height // pool, width // pool
        stages.append(Stage(channels, maps, kernel, pool, height, width))
        channels = maps
    return CNN(shape, tuple(stages), (channels * height * width, *settings.widths, outputs))


def _check(setting: str, i: int, size: int, maps: tuple[int, int], shape: Shape) -> None:
    if size > min(maps):
        raise StudyError(
            f"model/{setting}/{i}={size} is larger than what it is applied to, {maps[0]} x {maps[1]} of the data set's "
            f"{shape[1]} x {shape[2]} pixels; choose at most {min(maps)}, or fewer layers."
        )
