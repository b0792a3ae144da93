"""Fully connected network, all lanes as one stack.

With x the input, h_i the input of layer i, z_i its output and f the activation function, after layer norm if there is any,

    h_0 = x,      z_i = W_i h_i + b_i,      h_(i+1) = f(z_i),      logits = z_last.

By default f is ReLU, max(z, 0); `study.models._nonlinearities` has the others, and layer norm. Weights start as in
`study.models._layers`.

The network knows its own gradient (backpropagation, Rumelhart, Hinton and Williams 1986). With d_i the gradient of the loss with
respect to z_i, p the softmax of the logits and y the label as a unit vector,

    d_last = (p - y) / batch size,      d_(i-1) = f'(z_(i-1))^T W_i^T d_i,

and the gradient of layer i is the outer product of d_i and h_i, see `study.models._outer_products`. Only a network whose layer
norm learns is differentiated by autograd. Internally the image is the last axis, [lane, unit, batch]: with weights [lane, out,
in] the matrix products are fastest in this order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from study.config import Listed, StrictSettings
from study.contracts import Evaluation, Gradient, GradientFunction, Shape
from study.gradients import DenseGradient, MinibatchGradient
from study.lanes import Tensors
from study.models import _pulled_products, _spectral_products
from study.models._layers import ACTIVATION, INITIALISATION, LAYER_NORM, Initialisation, Layered, fitted
from study.models._nonlinearities import RELU, ActivationName, Backward, LayerNorm, Nonlinearity
from study.models._outer_products import OuterProduct, OuterProducts, Signal
from study.models._pulled_products import PulledProducts
from study.pulls import AnyPull, Pull, SpectralPull

WIDEST_FACTORED_BATCH = 128
"""Images up to which a gradient stays an outer product. For wider minibatches writing it out is cheaper."""


class Settings(StrictSettings):
    """Shape of the network."""

    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=2**31)], ...], Listed] = Field(
        (100, 100),
        max_length=1000,
        description="Units of each fully connected hidden layer, from input to output; an empty list is a linear classifier.",
    )
    activation: ActivationName = ACTIVATION
    layer_norm: LayerNorm = LAYER_NORM
    initialisation: Initialisation = INITIALISATION


@dataclass(frozen=True)
class MLP(Layered):
    """The network as functions of its parameters.

    They are `i/weight` [lane, out, in] and `i/bias` [lane, out] for each layer i; see `Layered` for others.

    Attributes:
        sizes: number of inputs, units of each hidden layer, number of outputs.
    """

    sizes: tuple[int, ...]
    nonlinearity: Nonlinearity = RELU
    initialisation: Initialisation = "torch"

    @property
    def depth(self) -> int:
        """Number of layers, the output layer included."""
        return len(self.sizes) - 1

    def weight_shapes(self) -> list[tuple[int, ...]]:
        """Shape of each layer's weight, in one lane."""
        parts = () if self.nonlinearity.outputs == 1 else (self.nonlinearity.outputs,)
        return [
            (self.sizes[i + 1], *(parts if i else ()), self.sizes[i]) for i in range(self.depth)
        ]  # [out, in] or [out, output, unit]

    def _drawn(self, shape: tuple[int, ...], bound: float, draw: torch.Generator) -> Tensor:
        units, *inputs = shape
        return torch.empty(math.prod(inputs), units).uniform_(-bound, bound, generator=draw).T.reshape(shape)

    def forward(self, params: Tensors, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and the activations of the hidden layers.

        Args:
            params: [lane, ...].
            inputs: [lane, batch, feature], or [1, batch, feature] if all lanes have the same.

        Returns:
            Logits [lane, batch, output], and for each hidden layer its activations [lane, batch, unit].
        """
        logits, signals = self._propagated(params, inputs)
        return logits.mT, [self.activity(signal).mT for signal in signals]

    def features(self, params: Tensors, inputs: Tensor) -> Tensor:
        """All outputs of the last hidden layer, [lane, batch, feature]."""
        _, signals = self._propagated(params, inputs)
        return signals[-1].mT

    def _propagated(self, params: Tensors, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and what the layers after the first one read.

        Each is [lane, unit, batch].
        """
        signals: list[Tensor] = []
        signal = inputs.mT  # [lane, feature, batch]
        for i in range(self.depth):
            if i:
                signal = self.nonlinearity(signal, self.learnt(params, i - 1))
                signals.append(signal)
            signal = layer(params, i, signal)  # [lane, out, batch]
        return signal, signals

    def gradient_function(self, inputs: Tensor, labels: Tensor) -> GradientFunction:
        """The gradient of a minibatch's mean cross-entropy."""
        return (MinibatchGradient if self.nonlinearity.learns else BackpropagatedGradient)(self, inputs, labels)

    def take_features(self, params: Tensors, features: Tensor) -> Tensors:
        """Parameters with only the given columns of the first weight.

        `features` is int64 [lane, input]; the first weight becomes [lane, out, input].
        """
        return {
            name: value.gather(2, _columns(features, value)) if name == "0/weight" else value
            for name, value in params.items()
        }

    def put_features(self, params: Tensors, features: Tensor, taken: Tensors) -> Tensors:
        """Parameters with columns of the first weight put back."""
        return {
            name: value.scatter(2, _columns(features, value), taken[name]) if name == "0/weight" else taken[name]
            for name, value in params.items()
        }

    def layers(self, params: Tensors, lane: int) -> list[nn.Module]:
        """One lane's linear layers and what is between them."""
        modules: list[nn.Module] = []
        for i in range(self.depth):
            if i:
                modules += self.between(params, lane, i - 1)
            weight, bias = params[f"{i}/weight"][lane].flatten(1), params[f"{i}/bias"][lane]
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.load_state_dict({"weight": weight, "bias": bias})
            modules.append(linear)
        return modules


def _columns(features: Tensor, weight: Tensor) -> Tensor:
    """Features [lane, input] as an index [lane, out, input]."""
    return features.unsqueeze(1).expand(-1, weight.shape[1], -1)


def layer(params: Tensors, i: int, signal: Tensor) -> Tensor:
    """`W_i h + b_i`, [lane, out, image].

    Args:
        params: of the network.
        i: index of the layer.
        signal: h [lane, in, image], or [1, in, image] if all lanes have the same.
    """
    weight, bias = params[f"{i}/weight"].flatten(2), params[f"{i}/bias"]  # [lane, out, in], [lane, out]
    if signal.shape[0] == weight.shape[0]:
        return torch.baddbmm(bias.unsqueeze(2), weight, signal)
    # All lanes share the input: one product of [lane * out, in] and [in, image].
    return torch.addmm(bias.flatten().unsqueeze(1), weight.flatten(0, 1), signal[0]).view(*bias.shape, -1)


@dataclass(frozen=True)
class Backpropagated(Evaluation):
    """An evaluation with what one at displaced weights needs.

    Attributes:
        first: z_0 [lane, out, batch].
        backs: W^T u of a spectral pull, see `study.models._spectral_products`.
    """

    first: Tensor
    backs: Tensors


@dataclass(frozen=True)
class BackpropagatedGradient(MinibatchGradient):
    """Gradient of a minibatch's mean cross-entropy, by backpropagation.

    By the equations of this module.

    Attributes:
        pull: a term of the loss, or None.
    """

    model: MLP
    pull: AnyPull | None = None

    def pulled(self, pull: AnyPull) -> BackpropagatedGradient:
        """The gradient of the loss and the pull."""
        return replace(self, pull=pull)

    def __call__(self, params: Tensors) -> Backpropagated:
        """The evaluation at `params`."""
        return self._evaluated(params)

    def displaced(self, params: Tensors, evaluation: Evaluation, scale: Tensor) -> Evaluation:
        """The evaluation at `params + scale * evaluation.gradient`.

        With outer products, the displaced weights are never written out.
        """
        gradient = evaluation.gradient
        elsewhere = isinstance(gradient, PulledProducts) and not gradient.is_at(params)  # combined by the rule
        if isinstance(evaluation, Backpropagated) and isinstance(gradient, OuterProducts) and not elsewhere:
            return self._evaluated(params, _Displacement(evaluation.first, evaluation.backs, gradient.layers, scale))
        return super().displaced(params, evaluation, scale)

    @cached_property
    def _pictures(self) -> Signal:
        return Signal(self.inputs.mT)  # [lane, feature, batch]; kept, with its Gram matrix, for a second evaluation

    def _evaluated(self, params: Tensors, displacement: _Displacement | None = None) -> Backpropagated:
        """The evaluation at `params`, displaced if a displacement is given."""
        keeps_outputs = isinstance(self.pull, Pull)
        signals = [self._pictures]  # h_i, each [lane, in, batch]
        outputs: list[Tensor] = []  # z_i, each [lane, out, batch]
        backwards: list[Backward] = []  # from h_(i+1) to z_i
        for i in range(self.model.depth):
            if i:
                # In place, except for z_0, which `Backpropagated.first` keeps for a displaced evaluation.
                signal, backward = self.model.nonlinearity.traced(outputs[-1], overwrites=i > 1 and not keeps_outputs)
                signals.append(Signal(signal))
                backwards.append(backward)
            if displacement is None:
                outputs.append(layer(params, i, signals[i].values))
            else:
                output = displacement.first if i == 0 else layer(params, i, signals[i].values)
                outputs.append(displacement.layers[i].moved_output(output, signals[i], displacement.scale))
        errors = [last_errors(outputs[-1], self.labels)]  # d_i, each [lane, out, batch], from layer i on
        for i in reversed(range(1, self.model.depth)):
            back = torch.bmm(params[f"{i}/weight"].flatten(2).mT, errors[0])  # W_i^T d_i, [lane, in, batch]
            if displacement is not None:
                back = displacement.layers[i].moved_errors(back, errors[0], displacement.scale)
            errors.insert(0, backwards[i - 1](back))  # d_(i-1)
        backs = self._backs(params, displacement)
        return Backpropagated(
            self._gradient(self._layers(params, signals, outputs, errors, backs, displacement)),
            outputs[-1].mT,
            lambda: [self.model.activity(signal.values).mT for signal in signals[1:]],
            outputs[0],
            backs,
        )

    def _backs(self, params: Tensors, displacement: _Displacement | None) -> Tensors:
        """W^T u of each layer that a spectral pull acts on."""
        if not isinstance(self.pull, SpectralPull):
            return {}
        if displacement is None:
            return self.pull.backs(params)
        return _spectral_products.moved_backs(self.pull, displacement.backs, displacement.layers, displacement.scale)

    def _layers(
        self,
        params: Tensors,
        signals: list[Signal],
        outputs: list[Tensor],
        errors: list[Tensor],
        backs: Tensors,
        displacement: _Displacement | None,
    ) -> OuterProducts:
        """The gradient of each layer, with the pull."""
        layers = zip(signals, errors, strict=True)
        parts = self.model.nonlinearity.outputs
        products = OuterProducts(
            tuple(
                OuterProduct(f"{i}/weight", f"{i}/bias", signal, error, parts if i else 1)
                for i, (signal, error) in enumerate(layers)
            )
        )
        if self.pull is None:
            return products
        if isinstance(self.pull, SpectralPull):
            return _spectral_products.pulled(products, self.pull, backs)
        if displacement is not None:
            return _pulled_products.displaced(products, self.pull, displacement.layers, displacement.scale)
        return _pulled_products.pulled(products, self.pull, params, outputs)

    def _gradient(self, products: OuterProducts) -> Gradient:
        return products if self.labels.shape[1] <= WIDEST_FACTORED_BATCH else DenseGradient(products.tensors())

    def _loss(self, leaves: Tensors) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Loss [lane], logits [lane, batch, output], and activations."""
        loss, logits, hidden = super()._loss(leaves)
        return loss if self.pull is None else loss + self.pull.loss(leaves), logits, hidden


def last_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """`(p - y) / batch size`, [lane, output, batch].

    Args:
        logits: [lane, output, batch].
        labels: int64 [lane, batch].
    """
    errors = logits.softmax(dim=1)  # p, [lane, output, batch]
    at_labels = labels.unsqueeze(1)  # [lane, 1, batch]
    errors.scatter_add_(1, at_labels, errors.new_full(at_labels.shape, -1))  # p - y
    return errors.mul_(1 / labels.shape[1])


@dataclass(frozen=True)
class _Displacement:
    """Weights moved by `scale * gradient`.

    Attributes:
        first: output of the first layer at the weights before they moved, [lane, out, batch].
        backs: W^T u of a spectral pull, there.
        layers: the gradient.
        scale: [lane].
    """

    first: Tensor
    backs: Tensors
    layers: tuple[OuterProduct, ...]
    scale: Tensor


def build(settings: Settings, shape: Shape, outputs: int) -> MLP:
    """The network for that picture shape and number of outputs."""

    def made(widths: tuple[int, ...], activation: ActivationName = settings.activation) -> MLP:
        nonlinearity = Nonlinearity(activation, settings.layer_norm)
        return MLP((math.prod(shape), *widths, outputs), nonlinearity, settings.initialisation)

    model = made(settings.widths)
    if model.nonlinearity.outputs > 1:
        model = made(fitted(settings.widths, made, made(settings.widths, "relu").parameter_count))
    return model
