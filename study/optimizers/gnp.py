"""Gradient norm penalty (Zhao, Zhang and Hu 2022, arXiv 2202.03599): the loss plus lambda |g|.

Its gradient is g + lambda H g / |g|. With r > 0 the Hessian product is the finite difference of the paper: the equation
with a = lambda / r, so that lambda = r is SAM with rho = r exactly. With r = 0 it is computed by double backprop.
"""

from pydantic import Field

from study.optimizers import LARGEST, BlendedRule, RuleSettings, constant_rule


class Settings(RuleSettings):
    """Settings of GNP."""

    penalty: float = Field(
        0.1, alias="lambda", gt=0, le=LARGEST, description="Weight of the gradient's norm in the loss."
    )
    r: float = Field(0.05, ge=0, le=LARGEST, description="Length of the finite difference, in weight space; 0: exact.")


def build(settings: Settings, lanes: int, device: str) -> BlendedRule:
    """The rule for that many lanes."""
    if settings.r == 0:
        return constant_rule(settings, lanes, device, penalty=settings.penalty)
    return constant_rule(settings, lanes, device, blend=settings.penalty / settings.r, radius=settings.r)
