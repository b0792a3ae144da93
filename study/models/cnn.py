"""Convolutional network, all lanes as one stack.

With x the picture, * a convolution without padding, pool the largest of each square of pixels, each in steps of its size, and f
the activation function, after layer norm if there is any,

    h_0 = x,      h_(i+1) = f(pool(W_i * h_i + b_i)),

and the last maps are the features of a fully connected network, as in `study.models.mlp`, which also says what f may be. By
default it is the small network of L2 Init (Kumar, Marklund and Van Roy 2023, arXiv 2308.11958). As pooling comes first, layer
norm normalises pooled maps; where f is not monotonic, pooling its outputs would give another network.

A unit of a convolutional layer is a feature map. Its activation on an image is the mean of the map's absolute values after
pooling, so a unit is dead or dormant if its whole map is. Weights have the unit that they read as their last axis, [lane, out,
row, column, in], and after the last map [lane, out, position, in].

On a CPU each lane has convolutions of its own, and the network knows its own gradient by the equations of `study.models.mlp`:
other ways are slower, see `study/docs/performance.md`. On a GPU all lanes are one matrix
product over unfolded pictures, differentiated by autograd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from study.models._layers import ACTIVATION, INITIALISATION, LAYER_NORM, Initialisation, Layered, fitted
from study.models._nonlinearities import RELU, ActivationName, Backward, LayerNorm, Learnt, Nonlinearity
from study.models.mlp import last_errors, layer

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
    activation: ActivationName = ACTIVATION
    layer_norm: LayerNorm = LAYER_NORM
    initialisation: Initialisation = INITIALISATION

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
        channels_in, channels: maps of the layer below, and its own.
        kernel, pool: height and width.
        height, width: of its maps after pooling.
    """

    channels_in: int
    channels: int
    kernel: int
    pool: int
    height: int
    width: int


@dataclass(frozen=True)
class CNN(Layered):
    """The network as functions of its parameters.

    They are `i/weight` and `i/bias` for each layer i, the convolutional ones first; see the module for their axes, and `Layered`
    for others.

    Attributes:
        shape: channels, height and width of a picture.
        stages: the convolutional layers.
        sizes: units after them, that is positions of their maps, units of each fully connected hidden layer, number of outputs.
    """

    shape: Shape
    stages: tuple[Stage, ...]
    sizes: tuple[int, ...]
    nonlinearity: Nonlinearity = RELU
    initialisation: Initialisation = "torch"

    @property
    def depth(self) -> int:
        """Number of layers, the output layer included."""
        return len(self.stages) + len(self.sizes) - 1

    def weight_shapes(self) -> list[tuple[int, ...]]:
        """Shape of each layer's weight, in one lane."""
        parts = () if self.nonlinearity.outputs == 1 else (self.nonlinearity.outputs,)
        shapes: list[tuple[int, ...]] = [
            (stage.channels, stage.kernel, stage.kernel, *(parts if i else ()), stage.channels_in)
            for i, stage in enumerate(self.stages)
        ]
        last = self.stages[-1]
        shapes.append((self.sizes[1], last.height * last.width, *parts, last.channels))
        return shapes + [(self.sizes[i + 1], *parts, self.sizes[i]) for i in range(1, len(self.sizes) - 1)]

    def forward(self, params: Tensors, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and the activations of the hidden layers.

        Args:
            params: [lane, ...].
            inputs: [lane, batch, feature], or [1, batch, feature] if all lanes have the same.

        Returns:
            Logits [lane, batch, output], and for each hidden layer its activations [lane, batch, unit].
        """
        logits, maps, signals = self._propagated(params, inputs)
        means = [self.strength(each).mean(dim=(2, 3)).mT for each in maps]
        return logits.mT, [self.activity(each).mT for each in [*means, *signals]]  # of [lane, output of unit, batch]

    def strength(self, maps: Tensor) -> Tensor:
        """Absolute values of maps."""
        return maps.abs() if self.nonlinearity.activation.is_signed else maps

    def features(self, params: Tensors, inputs: Tensor) -> Tensor:
        """All outputs of the last hidden layer, [lane, batch, feature].

        Of maps they are means.
        """
        _, maps, signals = self._propagated(params, inputs)
        return signals[-1].mT if signals else maps[-1].mean(dim=(2, 3))

    def _propagated(self, params: Tensors, inputs: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Logits, maps, and what the fully connected layers read.

        Maps are [lane, batch, row, column, map], the others [lane, unit, batch]. The maps themselves are not among the last ones.
        """
        pictures = inputs.unflatten(2, self.shape).expand(len(params["0/weight"]), -1, -1, -1, -1)
        maps = (self._unfolded if at_once(inputs) else self._lane_by_lane)(params, pictures)
        signals: list[Tensor] = []
        signal = maps[-1].flatten(2).mT  # [lane, feature, batch]
        for i in range(len(self.stages), self.depth):
            if i > len(self.stages):
                signal = self.nonlinearity(signal, self.learnt(params, i - 1))
                signals.append(signal)
            signal = layer(params, i, signal)  # [lane, out, batch]
        return signal, maps, signals

    def filters(self, params: Tensors, i: int) -> tuple[Tensor, ...]:
        """The filters of each lane, [out, in, row, column]."""
        return params[f"{i}/weight"].flatten(4).permute(0, 1, 4, 2, 3).unbind(0)

    def _learnt_of_maps(self, params: Tensors, i: int) -> list[Learnt | None]:
        """Scale and shift of each lane's maps, [map, 1, 1], if learnt."""
        learnt = self.learnt(params, i)  # [lane, map, 1]
        if learnt is None:
            return [None] * len(params["0/weight"])
        scales, shifts = (each.unsqueeze(3) for each in learnt)
        return list(zip(scales, shifts, strict=True))

    def _lane_by_lane(self, params: Tensors, pictures: Tensor) -> list[Tensor]:
        """The maps of each layer, [lane, batch, row, column, map]."""
        maps: list[list[Tensor]] = []  # by layer and lane, [batch, map, row, column]
        signals: Sequence[Tensor] = pictures.unbind(0)
        for i, stage in enumerate(self.stages):
            lanes = zip(signals, self.filters(params, i), params[f"{i}/bias"].unbind(0), strict=True)
            outputs = [max_pool2d(conv2d(*lane), stage.pool) for lane in lanes]
            signals = [
                self.nonlinearity(output, learnt)
                for output, learnt in zip(outputs, self._learnt_of_maps(params, i), strict=True)
            ]
            maps.append(signals)
        return [torch.stack([each.permute(0, 2, 3, 1) for each in of_layer]) for of_layer in maps]

    def _unfolded(self, params: Tensors, pictures: Tensor) -> list[Tensor]:
        """The same with one matrix product for all lanes of a layer."""
        maps: list[Tensor] = []
        signal = pictures.permute(0, 1, 3, 4, 2)  # [lane, batch, row, column, in]
        for i, stage in enumerate(self.stages):
            patches = signal.unfold(2, stage.kernel, 1).unfold(3, stage.kernel, 1)  # [..., row, column, in, k, k]
            lanes, batch, height, width = patches.shape[:4]
            rows = patches.permute(0, 1, 2, 3, 5, 6, 4).reshape(lanes, batch * height * width, -1)
            bias, weight = params[f"{i}/bias"].unsqueeze(1), params[f"{i}/weight"].flatten(2).mT
            output = torch.baddbmm(bias, rows, weight).view(lanes * batch, height, width, stage.channels)
            pooled = max_pool2d(output.permute(0, 3, 1, 2), stage.pool)  # [lane * batch, map, row, column]
            learnt = self.learnt(params, i)  # [lane, map, 1]
            if learnt is not None:
                scale, shift = (each.repeat_interleave(batch, dim=0).unsqueeze(3) for each in learnt)
                learnt = scale, shift
            signal = self.nonlinearity(pooled, learnt).permute(0, 2, 3, 1).unflatten(0, (lanes, batch))
            maps.append(signal)
        return maps

    def gradient_function(self, inputs: Tensor, labels: Tensor) -> GradientFunction:
        """The gradient of a minibatch's mean cross-entropy."""
        by_autograd = at_once(inputs) or self.nonlinearity.learns
        return (MinibatchGradient if by_autograd else LaneByLaneGradient)(self, inputs, labels)

    def layers(self, params: Tensors, lane: int) -> list[nn.Module]:
        """One lane's layers, on images as rows of features."""
        modules: list[nn.Module] = [nn.Unflatten(1, self.shape)]
        for i, stage in enumerate(self.stages):
            filters = self.filters(params, i)[lane]
            convolution = nn.Conv2d(filters.shape[1], stage.channels, stage.kernel)
            convolution.load_state_dict({"weight": filters, "bias": params[f"{i}/bias"][lane]})
            modules += [convolution, nn.MaxPool2d(stage.pool), *self.between(params, lane, i)]
        modules.append(nn.Flatten())
        for i in range(len(self.stages), self.depth):
            weight, bias = params[f"{i}/weight"][lane].flatten(1), params[f"{i}/bias"][lane]
            if i == len(self.stages):  # torch flattens map after map
                weight = params[f"{i}/weight"][lane].flatten(2).mT.flatten(1)
            else:
                modules += self.between(params, lane, i - 1)
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.load_state_dict({"weight": weight, "bias": bias})
            modules.append(linear)
        return modules


def at_once(inputs: Tensor) -> bool:
    """Whether all lanes convolve at once, as on a GPU."""
    return inputs.is_cuda


class _Convolved(NamedTuple):
    """What the gradient of one lane's layer needs.

    Attributes:
        signal: that the layer read, [batch, in, row, column].
        places: of the largest of each square.
        maps: the signal for the next layer, [batch, map, row, column].
        backward: from errors at the maps to errors at the pooled output.
    """

    signal: Tensor
    places: Tensor
    maps: Tensor
    backward: Backward


def _activations(model: CNN, traces: list[list[_Convolved]], connected: list[Tensor]) -> list[Tensor]:
    """Activations of each hidden layer, [lane, batch, unit].

    Args:
        model: the network.
        traces: convolutional layers of each lane.
        connected: outputs of fully connected hidden layers, [lane, output of unit, batch].
    """
    of_layers = zip(*traces, strict=True)
    means = [torch.stack([model.strength(stage.maps).mean(dim=(2, 3)) for stage in lanes]) for lanes in of_layers]
    return [model.activity(each).mT for each in [*(mean.mT for mean in means), *connected]]


@dataclass(frozen=True)
class LaneByLaneGradient(MinibatchGradient):
    """Gradient of a minibatch's mean cross-entropy, by backpropagation.

    Convolutions of one lane after the other, fully connected layers of all lanes at once; without terms of interventions. What a
    convolution returns is not kept: lanes that write into the same memory need half the time of lanes that take new memory.
    """

    model: CNN

    def __call__(self, params: Tensors) -> Evaluation:
        """The evaluation at `params`."""
        model = self.model
        first = len(model.stages)
        gradient = {name: value.new_empty(value.shape) for name, value in params.items()}
        filters = [model.filters(params, i) for i in range(first)]
        traces = [self._convolved(params, filters, lane) for lane in range(len(self.inputs))]
        features = torch.stack([trace[-1].maps.permute(0, 2, 3, 1).flatten(1) for trace in traces])
        signals = [features.mT]  # each [lane, in, batch]
        backwards: list[Backward] = []
        for i in range(first, model.depth):
            output = layer(params, i, signals[-1])  # [lane, out, batch]
            if i < model.depth - 1:
                signal, backward = model.nonlinearity.traced(output, overwrites=True)
                signals.append(signal)
                backwards.append(backward)
        logits, connected = output, signals[1:]
        errors = last_errors(logits, self.labels)  # [lane, out, batch]
        for i in reversed(range(first, model.depth)):
            # new and contiguous, so that these are views of the gradient
            torch.bmm(errors, signals.pop().mT, out=gradient[f"{i}/weight"].flatten(2))
            torch.sum(errors, dim=2, out=gradient[f"{i}/bias"])
            errors = torch.bmm(params[f"{i}/weight"].flatten(2).mT, errors)
            if backwards:
                errors = backwards.pop()(errors)
        for lane, trace in enumerate(traces):
            self._convolutions(gradient, lane, trace, [each[lane] for each in filters], errors[lane])
        return Evaluation(DenseGradient(gradient), logits.mT, lambda: _activations(model, traces, connected))

    def _convolved(self, params: Tensors, filters: Sequence[Sequence[Tensor]], lane: int) -> list[_Convolved]:
        """The convolutional layers of one lane."""
        signal = self.inputs[lane].unflatten(1, self.model.shape)
        trace: list[_Convolved] = []
        for i, stage in enumerate(self.model.stages):
            output = conv2d(signal, filters[i][lane], params[f"{i}/bias"][lane])
            pooled, places = torch.ops.aten.max_pool2d_with_indices(output, [stage.pool] * 2)
            maps, backward = self.model.nonlinearity.traced(pooled, overwrites=True)
            trace.append(_Convolved(signal, places, maps, backward))
            signal = maps
        return trace

    def _convolutions(
        self, gradient: Tensors, lane: int, trace: list[_Convolved], filters: list[Tensor], errors: Tensor
    ) -> None:
        """Writes the gradient of one lane's convolutional layers.

        `errors` [feature, batch] are those at the last maps.
        """
        last = trace[-1].maps.permute(0, 2, 3, 1)  # [batch, row, column, map]
        errors = errors.mT.reshape(last.shape).permute(0, 3, 1, 2)
        for i in reversed(range(len(trace))):
            signal, places, _, backward = trace[i]
            errors = backward(errors)
            # of the pooled errors, which are fewer; oneDNN would take a fifth of the layer's time for it
            torch.sum(errors, dim=(0, 2, 3), out=gradient[f"{i}/bias"][lane])
            errors = self._before_pooling(errors, places, self.model.stages[i], signal)
            back, weight, _ = torch.ops.aten.convolution_backward(
                errors, signal, filters[i], None, *CONVOLUTION, [i > 0, True, False]
            )
            weights = gradient[f"{i}/weight"]
            weights[lane] = weight.permute(0, 2, 3, 1).reshape(weights.shape[1:])
            errors = back

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
    layers = len(settings.channels)

    def made(widths: tuple[int, ...], activation: ActivationName = settings.activation) -> CNN:
        stages = _stages(settings, shape, widths[:layers])
        units = stages[-1].channels * stages[-1].height * stages[-1].width
        nonlinearity = Nonlinearity(activation, settings.layer_norm)
        return CNN(shape, stages, (units, *widths[layers:], outputs), nonlinearity, settings.initialisation)

    widths = (*settings.channels, *settings.widths)
    model = made(widths)
    if model.nonlinearity.outputs > 1:
        model = made(fitted(widths, made, made(widths, "relu").parameter_count))
    return model


def _stages(settings: Settings, shape: Shape, channels: Sequence[int]) -> tuple[Stage, ...]:
    """The convolutional layers with so many maps."""
    below, height, width = shape
    stages = []
    for i, (maps, kernel, pool) in enumerate(zip(channels, settings.kernels, settings.pools, strict=True)):
        _check("kernels", i, kernel, (height, width), shape)
        height, width = height - kernel + 1, width - kernel + 1
        _check("pools", i, pool, (height, width), shape)
        height, width = height // pool, width // pool
        stages.append(Stage(below, maps, kernel, pool, height, width))
        below = maps
    return tuple(stages)


def _check(setting: str, i: int, size: int, maps: tuple[int, int], shape: Shape) -> None:
    if size > min(maps):
        raise StudyError(
            f"model/{setting}/{i}={size} is larger than what it is applied to, {maps[0]} x {maps[1]} of the data set's "
            f"{shape[1]} x {shape[2]} pixels; choose at most {min(maps)}, or fewer layers."
        )
