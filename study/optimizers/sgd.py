"""Stochastic gradient descent: the equation with a = 0."""

import torch

from study.optimizers import BlendedRule, RuleSettings, constant_rule
from study.optimizers._layerwise import LayerwiseSGD


class Settings(RuleSettings):
    """Settings of SGD."""


def build(settings: Settings, lanes: int, device: str) -> BlendedRule:
    """The rule for a number of lanes."""
    return constant_rule(settings, lanes, device)


def layerwise(lr: float, lanes: int, device: str) -> LayerwiseSGD:
    """Plain SGD with a learning rate for each parameter."""
    return LayerwiseSGD(torch.full((lanes,), lr, device=device))
