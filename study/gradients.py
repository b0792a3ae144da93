"""The gradient of one minibatch's loss, as the function that a rule asks as often as it needs."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from study.contracts import Evaluation, Intervention, Model
from study.lanes import Tensors, norm, per_lane


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

    def __call__(self, params: Tensors) -> Evaluation:
        """The evaluation at `params`."""
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        loss, losses, logits = self._loss(leaves)
        gradient = torch.autograd.grad(loss.sum(), list(leaves.values()))
        return Evaluation(dict(zip(leaves, gradient, strict=True)), losses.detach(), logits.detach())

    def with_hessian_product(self, params: Tensors) -> tuple[Evaluation, Tensors]:
        """The evaluation at `params` and `H g / |g|` there; the product is 0 in a lane whose gradient is 0."""
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        loss, losses, logits = self._loss(leaves)
        gradient = torch.autograd.grad(loss.sum(), list(leaves.values()), create_graph=True)
        fixed = {name: value.detach() for name, value in zip(leaves, gradient, strict=True)}
        length = norm(fixed)
        scale = torch.where(length == 0, torch.zeros_like(length), 1 / length)
        along = torch.stack(
            [
                (value * fixed[name] * per_lane(scale, value)).flatten(1).sum(1)
                for name, value in zip(leaves, gradient, strict=True)
            ]
        )
        product = torch.autograd.grad(along.sum(), list(leaves.values()), materialize_grads=True)
        return Evaluation(fixed, losses.detach(), logits.detach()), dict(zip(leaves, product, strict=True))

    def _loss(self, leaves: Tensors) -> tuple[Tensor, Tensor, Tensor]:
        """Loss [lane] with the interventions' terms, losses [lane, batch] without, logits [lane, batch, output]."""
        logits, _ = self.model.forward(leaves, self.inputs)
        losses = cross_entropy(logits.flatten(0, 1), self.labels.flatten(), reduction="none").view(self.labels.shape)
        loss = losses.mean(dim=1)
        for intervention, state in self.interventions:
            term = intervention.loss_term(leaves, state)
            loss = loss if term is None else loss + term
        return loss, losses, logits
