"""The gradient of one minibatch's loss, by autograd.

With L the mean cross-entropy of the minibatch plus the terms of the interventions, w the parameters of one lane,

    g = dL/dw,      H g / |g| = d(g . v)/dw with v = g / |g| held fixed      (double backprop, Pearlmutter 1994)

Rules take the gradient as a function and call it as often as they need. Any model can be differentiated here. A model that knows
its own gradient provides its own function, see `study.contracts.DirectModel`; a test compares the two. Terms of interventions
whose gradient is known are added to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from study import pulls
from study.contracts import DirectModel, Evaluation, GradientFunction, Intervention, Model, Pullable
from study.lanes import Tensors, add, norm, per_lane, reciprocal


@dataclass(frozen=True)
class DenseGradient:
    """A gradient as one tensor [lane, ...] per parameter."""

    values: Tensors

    def norm(self) -> Tensor:
        """L2 norm over all parameters together, [lane]."""
        return norm(self.values)

    def combined(self, share: Tensor, other: Self, weight: Tensor) -> Self:
        """`share * self + weight * other`."""
        return replace(
            self,
            values={
                name: torch.addcmul(value * per_lane(share, value), per_lane(weight, value), other.values[name])
                for name, value in self.values.items()
            },
        )

    def add_to(self, tensors: Tensors, scale: Tensor) -> None:
        """Adds `scale * self`, in place."""
        for name, value in self.values.items():
            tensors[name].addcmul_(per_lane(scale, value), value)

    def tensors(self) -> Tensors:
        """The tensors themselves."""
        return self.values


@dataclass(frozen=True)
class MinibatchGradient:
    """Gradient of a minibatch's loss, lane by lane, by autograd.

    The loss is the mean cross-entropy plus the terms of the interventions.

    Attributes:
        model: the network.
        inputs: [lane, batch, feature].
        labels: int64 [lane, batch].
        interventions: each with its state.
    """

    model: Model
    inputs: Tensor
    labels: Tensor
    interventions: tuple[tuple[Intervention, Tensors], ...] = ()

    @torch.enable_grad()
    def __call__(self, params: Tensors) -> Evaluation:
        """The evaluation at `params`."""
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        loss, logits, hidden = self._loss(leaves)  # [lane], [lane, batch, output]
        # Lanes do not interact, so the gradient of the sum is that of each lane's own loss.
        gradient = torch.autograd.grad(loss.sum(), list(leaves.values()))  # each [lane, ...]
        return _evaluation(dict(zip(leaves, gradient, strict=True)), logits, hidden)

    def displaced(self, params: Tensors, evaluation: Evaluation, scale: Tensor) -> Evaluation:
        """The evaluation at `params + scale * evaluation.gradient`."""
        return self(add(params, evaluation.gradient.tensors(), scale))

    @torch.enable_grad()
    def with_hessian_product(self, params: Tensors) -> tuple[Evaluation, DenseGradient]:
        """The evaluation at `params` and `H g / |g|` there.

        The product is 0 in a lane whose gradient is 0.
        """
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        loss, logits, hidden = self._loss(leaves)
        gradient = torch.autograd.grad(loss.sum(), list(leaves.values()), create_graph=True)  # g, each [lane, ...]
        fixed = {name: value.detach() for name, value in zip(leaves, gradient, strict=True)}  # g as a constant
        scale = reciprocal(norm(fixed))  # 1 / |g|, [lane]
        along = torch.stack(  # g . v, one row for each parameter, [parameter, lane]
            [
                (value * fixed[name] * per_lane(scale, value)).flatten(1).sum(1)
                for name, value in zip(leaves, gradient, strict=True)
            ]
        )
        product = torch.autograd.grad(along.sum(), list(leaves.values()), materialize_grads=True)  # H v
        return _evaluation(fixed, logits, hidden), DenseGradient(dict(zip(leaves, product, strict=True)))

    def _loss(self, leaves: Tensors) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Loss [lane], logits [lane, batch, output], and activations."""
        logits, hidden = self.model.forward(leaves, self.inputs)
        losses = cross_entropy(logits.flatten(0, 1), self.labels.flatten(), reduction="none").view(self.labels.shape)
        loss = losses.mean(dim=1)  # of [lane, batch]
        for intervention, state in self.interventions:
            term = intervention.loss_term(leaves, state)
            loss = loss if term is None else loss + term
        return loss, logits, hidden


def _evaluation(gradient: Tensors, logits: Tensor, hidden: list[Tensor]) -> Evaluation:
    """An evaluation of what autograd returned."""
    return Evaluation(
        DenseGradient(gradient), logits.detach(), lambda: [activations.detach() for activations in hidden]
    )


@dataclass(frozen=True)
class GradientWithTerms(MinibatchGradient):
    """A model's own gradient plus that of terms, written out.

    Every intervention knows the gradient of its term. Autograd is needed for Hessian products only.

    Attributes:
        own: the model's own gradient function for this minibatch.
    """

    own: GradientFunction = field(kw_only=True)

    def __call__(self, params: Tensors) -> Evaluation:
        """The evaluation at `params`."""
        evaluation = self.own(params)
        gradient = dict(evaluation.gradient.tensors())
        for intervention, state in self.interventions:
            term = intervention.loss_gradient(params, state) or {}
            gradient |= {name: gradient[name] + value for name, value in term.items()}
        return replace(evaluation, gradient=DenseGradient(gradient))


def direct_gradient(
    model: DirectModel,
    inputs: Tensor,
    labels: Tensor,
    interventions: tuple[tuple[Intervention, Tensors], ...],
    *,
    lasting: bool = False,
) -> GradientFunction:
    """A model's own gradient, and that of the interventions' terms.

    Args:
        model, inputs, labels: see `MinibatchGradient`.
        interventions: each with its state; those that act on the loss know their gradient.
        lasting: whether gradients hold after the parameters have changed.
    """
    own = model.gradient_function(inputs, labels)
    acting = tuple((intervention, state) for intervention, state in interventions if intervention.acts_on_loss)
    if not acting:
        return own
    own_pulls = [pull for intervention, state in acting if (pull := intervention.pull(state)) is not None]
    joint = pulls.joined(own_pulls) if len(own_pulls) == len(acting) else None
    reads_parameters = isinstance(joint, pulls.Pull)
    if isinstance(own, Pullable) and joint is not None and not (lasting and reads_parameters):
        return own.pulled(joint)
    return GradientWithTerms(model, inputs, labels, acting, own=own)
