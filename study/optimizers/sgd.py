"""Stochastic gradient descent: the equation with a = 0."""

from study.optimizers import BlendedRule, RuleSettings, constant_rule


class Settings(RuleSettings):
    """Settings of SGD."""


def build(settings: Settings, lanes: int, device: str) -> BlendedRule:
    """The rule for a number of lanes."""
    return constant_rule(settings, lanes, device)
