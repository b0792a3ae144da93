"""Stochastic gradient descent: the equation with a = 0."""

from study.optimizers import BlendedRule, RuleSettings, constant_rule


class Settings(RuleSettings):
    """The settings that every optimizer has."""


def build(settings: Settings, lanes: int, device: str) -> BlendedRule:
    """The rule for that many lanes."""
    return constant_rule(settings, lanes, device)
