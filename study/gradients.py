"""The gradient of one minibatch's loss, as the function that a rule asks as often as it needs; here by autograd.

Any model is differentiated so. A model that knows its own gradient brings a function of its own, see `DirectModel`, and is
held to this one by test.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from study.contracts import Evaluation, Intervention, Model
from study.lanes import Tensors, add, norm, per_lane, reciprocal


@dataclass(frozen=True)
class DenseGradient:
    """A gradient written out: one tensor [lane, ...] for each parameter."""

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
    """Gradient of the mean cross-entropy of a minibatch plus the terms of the interventions, lane by lane.

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
        loss, logits = self._loss(leaves)
        gradient = torch.autograd.grad(loss.sum(), list(leaves.values()))
        return Evaluation(DenseGradient(dict(zip(leaves, gradient, strict=True))), logits.detach())

    def displaced(self, params: Tensors, seen: Evaluation, scale: Tensor) -> Evaluation:
        """The evaluation at `params + scale * seen.gradient`."""
        return self(add(params, seen.gradient.tensors(), scale))

    @torch.enable_grad()
    def with_hessian_product(self, params: Tensors) -> tuple[Evaluation, DenseGradient]:
        """The evaluation at `params` and `H g / |g|` there; the product is 0 in a lane whose gradient is 0."""
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        loss, logits = self._loss(leaves)
        gradient = torch.autograd.grad(loss.sum(), list(leaves.values()), create_graph=True)
        fixed = {name: value.detach() for name, value in zip(leaves, gradient, strict=True)}
        scale = reciprocal(norm(fixed))
        along = torch.stack(
            [
                (value * fixed[name] * per_lane(scale, value)).flatten(1).sum(1)
                for name, value in zip(leaves, gradient, strict=True)
            ]
        )
        product = torch.autograd.grad(along.sum(), list(leaves.values()), materialize_grads=True)
        seen = Evaluation(DenseGradient(fixed), logits.detach())
        return seen, DenseGradient(dict(zip(leaves, product, strict=True)))

    def _loss(self, leaves: Tensors) -> tuple[Tensor, Tensor]:
        """Loss [lane] with the interventions' terms, and logits [lane, batch, output]."""
        logits, _ = self.model.forward(leaves, self.inputs)
        losses = cross_entropy(logits.flatten(0, 1), self.labels.flatten(), reduction="none").view(self.labels.shape)
        loss = losses.mean(dim=1)
        for intervention, state in self.interventions:
            term = intervention.loss_term(leaves, state)
            loss = loss if term is None else loss + term
        return loss, logits
