"""Activation functions and layer norm: what stands between two layers.

With z the output of a layer's units on an image,

    relu            h = max(z, 0)
    leaky_relu      h = z where z > 0, and 0.01 z elsewhere             (Maas, Hannun and Ng 2013)
    gelu            h = z Phi(z), Phi the normal distribution           (Hendrycks and Gimpel 2016, arXiv 1606.08415)
    tanh            h = tanh(z)
    crelu           h = [max(z, 0), max(-z, 0)]                         (Abbas et al. 2023, arXiv 2303.07507)
    deep_fourier    h = [sin(z), cos(z)]                                (Lewandowski et al. 2024, arXiv 2410.20634)

A unit of the last two has two outputs, so the next layer has twice the inputs; `study.models._layers.fitted` cuts widths for it.

Layer norm (Ba, Kiros and Hinton 2016, arXiv 1607.06450) stands before the activation function, as in Normalize-and-Project (Lyle
et al. 2024, arXiv 2407.01800) and in the code of L2 Init (Kumar, Marklund and Van Roy 2023, arXiv 2308.11958). With mean and
variance over the layer, that is over all its units or all positions of all its maps,

    n = (z - mean) / sqrt(variance + 1e-5),      and if a scale and a shift of each unit are learnt, scale * n + shift.

Both forms are in use. Without scale and shift (`plain`) a network has the parameters that it has without layer norm, and only
weights and biases can lose plasticity; its layers do not change if their weights and biases grow together, which projecting
weights back to their norm rests on. With them (`learnt`) it is torch.nn.LayerNorm, as in the code of L2 Init, but for maps, whose
scale and shift here are those of a map and there of each of its positions. So a study of layer norm itself (Lyle et al. 2024,
arXiv 2402.18762) may have either.

The gradient, with d the derivative of the loss with respect to the variable named:

    d_z = (d_n - mean(d_n) - n mean(n d_n)) / sqrt(variance + 1e-5).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, leaky_relu

from study.contracts import not_positive

ActivationName = Literal["relu", "leaky_relu", "gelu", "tanh", "crelu", "deep_fourier"]

LayerNorm = Literal["none", "plain", "learnt"]

UNITS: Final = 1
"""The axis of units or maps in all values here: [lane, unit, batch] or [image, map, row, column]."""

SLOPE: Final = 0.01
"""Of leaky ReLU below 0, the default of torch."""

EPSILON: Final = 1e-5
"""Added to a variance, the default of torch."""

Backward = Callable[[Tensor], Tensor]
"""Maps errors at the signal to errors at the layer's output; it may overwrite its argument."""


class Activation(ABC):
    """An activation function f with its derivative.

    Attributes:
        outputs: of each unit.
        is_signed: whether outputs may be negative.
        gain: of Kaiming's initialisation, sqrt(1 / E f(z)^2) for z of mean 0 and variance 1, or as torch rounds it.
        is_homogeneous: whether f(c z) = c f(z) for c > 0.
    """

    outputs: int = 1
    is_signed: bool = True
    is_homogeneous: bool = False
    gain: float = nn.init.calculate_gain("relu")

    @abstractmethod
    def __call__(self, values: Tensor) -> Tensor:
        """The signal f(z), differentiable; outputs of a kind are together."""

    def overwriting(self, values: Tensor) -> Tensor:
        """The same; it may overwrite its argument."""
        return self(values)

    @abstractmethod
    def backward(self, errors: Tensor, values: Tensor, signal: Tensor) -> Tensor:
        """Errors at z from those at h.

        It may overwrite `errors`. Where `overwriting` has overwritten `values`, they are the signal.

        Args:
            errors: derivative with respect to h.
            values: z.
            signal: h = f(z).
        """

    @abstractmethod
    def module(self) -> nn.Module:
        """The same as a module of torch."""

    @abstractmethod
    def is_flat(self, activity: Tensor) -> Tensor:
        """Where no gradient passes, bool; see `study.contracts.HiddenLayer`."""


class _Relu(Activation):
    """max(z, 0)."""

    is_signed = False
    is_homogeneous = True

    def __call__(self, values: Tensor) -> Tensor:
        return values.relu()

    def overwriting(self, values: Tensor) -> Tensor:
        return values.relu_()

    def backward(self, errors: Tensor, values: Tensor, signal: Tensor) -> Tensor:
        return where_positive(errors, signal)

    def module(self) -> nn.Module:
        return nn.ReLU()

    def is_flat(self, activity: Tensor) -> Tensor:
        return not_positive(activity)


class _LeakyRelu(Activation):
    """z where it is positive, and `SLOPE` z elsewhere."""

    is_homogeneous = True
    gain = nn.init.calculate_gain("leaky_relu", SLOPE)

    def __call__(self, values: Tensor) -> Tensor:
        return leaky_relu(values, SLOPE)

    def overwriting(self, values: Tensor) -> Tensor:
        return leaky_relu(values, SLOPE, inplace=True)

    def backward(self, errors: Tensor, values: Tensor, signal: Tensor) -> Tensor:
        result: Tensor = torch.ops.aten.leaky_relu_backward(errors, signal, SLOPE, True)  # h has the sign of z
        return result

    def module(self) -> nn.Module:
        return nn.LeakyReLU(SLOPE)

    def is_flat(self, activity: Tensor) -> Tensor:
        return _nowhere(activity)


class _Gelu(Activation):
    """z Phi(z), exact."""

    def __call__(self, values: Tensor) -> Tensor:
        return gelu(values)

    def backward(self, errors: Tensor, values: Tensor, signal: Tensor) -> Tensor:
        result: Tensor = torch.ops.aten.gelu_backward(errors, values)
        return result

    def module(self) -> nn.Module:
        return nn.GELU()

    def is_flat(self, activity: Tensor) -> Tensor:
        return activity == 0


class _Tanh(Activation):
    """tanh(z)."""

    gain = nn.init.calculate_gain("tanh")

    def __call__(self, values: Tensor) -> Tensor:
        return values.tanh()

    def overwriting(self, values: Tensor) -> Tensor:
        return values.tanh_()

    def backward(self, errors: Tensor, values: Tensor, signal: Tensor) -> Tensor:
        result: Tensor = torch.ops.aten.tanh_backward(errors, signal)
        return result

    def module(self) -> nn.Module:
        return nn.Tanh()

    def is_flat(self, activity: Tensor) -> Tensor:
        return activity.abs() >= 1


class _Crelu(Activation):
    """[max(z, 0), max(-z, 0)]."""

    outputs = 2
    is_signed = False
    is_homogeneous = True

    def __call__(self, values: Tensor) -> Tensor:
        return torch.cat([values.relu(), values.neg().relu()], dim=UNITS)

    def backward(self, errors: Tensor, values: Tensor, signal: Tensor) -> Tensor:
        above, below = where_positive(errors, signal).chunk(2, dim=UNITS)
        return above - below

    def module(self) -> nn.Module:
        return ConcatenatedReLU()

    def is_flat(self, activity: Tensor) -> Tensor:
        return activity == 0


class _DeepFourier(Activation):
    """[sin(z), cos(z)]."""

    outputs = 2

    def __call__(self, values: Tensor) -> Tensor:
        return torch.cat([values.sin(), values.cos()], dim=UNITS)

    def backward(self, errors: Tensor, values: Tensor, signal: Tensor) -> Tensor:
        at_sine, at_cosine = errors.chunk(2, dim=UNITS)
        sine, cosine = signal.chunk(2, dim=UNITS)
        return (at_sine * cosine).addcmul_(at_cosine, sine, value=-1)

    def module(self) -> nn.Module:
        return Fourier()

    def is_flat(self, activity: Tensor) -> Tensor:
        return _nowhere(activity)


def _nowhere(activity: Tensor) -> Tensor:
    return torch.zeros_like(activity, dtype=torch.bool)


def where_positive(errors: Tensor, signal: Tensor) -> Tensor:
    """Sets errors to 0, in place, unless `signal` is positive."""
    torch.ops.aten.threshold_backward.grad_input(errors, signal, 0, grad_input=errors)
    return errors


class ConcatenatedReLU(nn.Module):
    """CReLU of values [image, unit, ...]."""

    def forward(self, values: Tensor) -> Tensor:
        """[image, 2 unit, ...]."""
        return torch.cat([values.relu(), values.neg().relu()], dim=1)


class Fourier(nn.Module):
    """Sine and cosine of values [image, unit, ...]."""

    def forward(self, values: Tensor) -> Tensor:
        """[image, 2 unit, ...]."""
        return torch.cat([values.sin(), values.cos()], dim=1)


ACTIVATIONS: Final[dict[ActivationName, Activation]] = {
    "relu": _Relu(),
    "leaky_relu": _LeakyRelu(),
    "gelu": _Gelu(),
    "tanh": _Tanh(),
    "crelu": _Crelu(),
    "deep_fourier": _DeepFourier(),
}

Learnt = tuple[Tensor, Tensor]
"""Scale and shift of each unit, shaped to broadcast over the values."""


@dataclass(frozen=True)
class Nonlinearity:
    """Layer norm, if any, and then an activation function.

    Values are [lane, unit, batch] or [image, map, row, column].

    Attributes:
        name: of the activation function.
        layer_norm: whether it normalises, and whether it then learns.
    """

    name: ActivationName = "relu"
    layer_norm: LayerNorm = "none"

    @property
    def activation(self) -> Activation:
        """The activation function."""
        return ACTIVATIONS[self.name]

    @property
    def outputs(self) -> int:
        """Number of outputs of each unit."""
        return self.activation.outputs

    @property
    def is_homogeneous(self) -> bool:
        """Whether a factor c > 0 multiplies the signal too."""
        return self.activation.is_homogeneous and self.layer_norm == "none"

    @property
    def learns(self) -> bool:
        """Whether each unit has a learnt scale and shift."""
        return self.layer_norm == "learnt"

    def __call__(self, values: Tensor, learnt: Learnt | None) -> Tensor:
        """The signal for the next layer, differentiable.

        Args:
            values: z.
            learnt: scale and shift if they are learnt, otherwise None.
        """
        if self.layer_norm != "none":
            values, _ = normalised(values)
        if learnt is not None:
            scale, shift = learnt
            values = values * scale + shift
        return self.activation(values)

    def traced(self, values: Tensor, *, overwrites: bool) -> tuple[Tensor, Backward]:
        """The signal, and what carries errors back through it.

        For a nonlinearity that learns nothing.

        Args:
            values: z.
            overwrites: whether `values` may be overwritten.
        """
        activation = self.activation
        if self.layer_norm == "none":
            signal = activation.overwriting(values) if overwrites else activation(values)
            return signal, lambda errors: activation.backward(errors, values, signal)
        normal, factor = normalised(values)
        signal = activation(normal)
        return signal, lambda errors: _denormalised(activation.backward(errors, normal, signal), normal, factor)

    def modules(self, units: int, learnt: Learnt | None) -> list[nn.Module]:
        """The same as modules, on values [image, unit, ...].

        Args:
            units: number of units or maps.
            learnt: scale and shift [unit] if they are learnt, otherwise None.
        """
        modules: list[nn.Module] = [self.activation.module()]
        if self.layer_norm != "none":
            norm = nn.GroupNorm(1, units, EPSILON, affine=learnt is not None)  # of one group: layer norm
            if learnt is not None:
                norm.load_state_dict({"weight": learnt[0], "bias": learnt[1]})
            modules.insert(0, norm)
        return modules


def _axes(values: Tensor) -> tuple[int, ...]:
    """Axes of a layer: its units, or its maps and positions."""
    return (UNITS,) if values.dim() == 3 else (UNITS, 2, 3)


def normalised(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values of mean 0 and variance 1 over a layer.

    The second result is the factor, 1 / sqrt(variance + epsilon).
    """
    variance, mean = torch.var_mean(values, dim=_axes(values), correction=0, keepdim=True)
    factor = (variance + EPSILON).rsqrt()
    return (values - mean) * factor, factor


def _denormalised(errors: Tensor, normal: Tensor, factor: Tensor) -> Tensor:
    """Errors at the values from those at the normalised values."""
    axes = _axes(errors)
    along = (errors * normal).mean(dim=axes, keepdim=True)
    return (errors - errors.mean(dim=axes, keepdim=True)).addcmul_(normal, along, value=-1).mul_(factor)


RELU: Final = Nonlinearity()
"""The default."""
