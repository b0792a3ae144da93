"""Sharpness-aware minimisation: a = 1 and r = rho.

Foret, Kleiner, Mobahi and Neyshabur 2021, arXiv 2010.01412.
"""

from study.config import setting
from study.optimizers import LARGEST, BlendedRule, RuleSettings, constant_rule


class Settings(RuleSettings):
    """Settings of SAM."""

    rho: float = setting(
        0.05,
        "Length of the uphill step, in weight space.",
        short="rho",
        unit="length in weight space",
        role="sharpness",
        gt=0,
        le=LARGEST,
    )


def build(settings: Settings, lanes: int, device: str) -> BlendedRule:
    """The rule for a number of lanes."""
    return constant_rule(settings, lanes, device, blend=1.0, radius=settings.rho)
