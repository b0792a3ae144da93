"""Gradient norm penalty: the loss plus lambda |g|.

Zhao, Zhang and Hu 2022, arXiv 2202.03599. Its gradient is

    G = g + lambda H g / |g|.

With r > 0 the Hessian product is the finite difference of their paper, that is the package's equation with a = lambda / r; so
lambda = r is exactly SAM with rho = r. With r = 0 the product is computed by double backprop.
"""

from study.config import setting
from study.optimizers import LARGEST, BlendedRule, RuleSettings, constant_rule


class Settings(RuleSettings):
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
        return constant_rule(settings, lanes, device, penalty=settings.penalty)
    return constant_rule(settings, lanes, device, blend=settings.penalty / settings.r, radius=settings.r)
