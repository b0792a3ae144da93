"""Sharpness-aware minimisation: a = 1 and r = rho.

Foret, Kleiner, Mobahi and Neyshabur 2021, arXiv 2010.01412. A negative rho is "anti-SAM": the step goes downhill before the
gradient is taken, which rewards sharpness. rho = 0 would be SGD at twice the cost, and is refused.
"""

from pydantic import field_validator

from study.config import setting
from study.optimizers import LARGEST, BlendedRule, SharpnessSettings, constant_rule, not_zero


class Settings(SharpnessSettings):
    """Settings of SAM."""

    rho: float = setting(
        0.05,
        "Length of the uphill step, in weight space; below 0: downhill, anti-SAM.",
        short="rho",
        unit="length in weight space",
        role="sharpness",
        ge=-LARGEST,
        le=LARGEST,
    )
    _rho_is_not_zero = field_validator("rho")(not_zero)


def build(settings: Settings, lanes: int, device: str) -> BlendedRule:
    """The rule for a number of lanes."""
    return constant_rule(settings, lanes, device, blend=1.0, radius=settings.rho)
