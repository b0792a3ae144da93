"""Gradient norm penalty: the loss plus lambda |g|.

Zhao, Zhang and Hu 2022, arXiv 2202.03599. Its gradient is

    G = g + lambda H g / |g|.

With r > 0 the Hessian product is the finite difference of their paper, that is the package's equation with a = lambda / r; so
lambda = r is exactly SAM with rho = r. With r = 0 the product is computed by double backprop. The blend of 0.8 in the recipes of
their code is lambda = 0.8 r: 0.08 at r = 0.1. A schedule is one of lambda.
"""

from dataclasses import replace

from study.config import setting
from study.optimizers import LARGEST, BlendedRule, SharpnessSettings, constant_rule


class Settings(SharpnessSettings):
    """Settings of GNP."""

    penalty: float = setting(
        0.1,
        "Weight of the gradient's norm in the loss.",
        short="lambda",
        unit="1",
        role="sharpness",
        alias="lambda",
        gt=0,
        le=LARGEST,
    )
    r: float = setting(
        0.05,
        "Length of the finite difference, in weight space; 0: exact.",
        short="r",
        unit="length in weight space",
        zero="exact",
        ge=0,
        le=LARGEST,
    )


def build(settings: Settings, lanes: int, device: str) -> BlendedRule:
    """The rule for a number of lanes."""
    if settings.r == 0:
        return replace(constant_rule(settings, lanes, device, penalty=settings.penalty), scheduled="penalty")
    rule = constant_rule(settings, lanes, device, blend=settings.penalty / settings.r, radius=settings.r)
    # a scheduled blend is not 1 in every step
    return replace(rule, scheduled="blend", mixed=rule.mixed or rule.schedule is not None)
