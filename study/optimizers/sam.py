"""Sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412): the equation with a = 1 and r = rho."""

from pydantic import Field

from study.optimizers import LARGEST, BlendedRule, RuleSettings, constant_rule


class Settings(RuleSettings):
    """Settings of SAM."""

    rho: float = Field(0.05, gt=0, le=LARGEST, description="Length of the step uphill, in weight space.")


def build(settings: Settings, lanes: int, device: str) -> BlendedRule:
    """The rule for that many lanes."""
    return constant_rule(settings, lanes, device, blend=1.0, radius=settings.rho)
