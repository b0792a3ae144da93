"""AdamW: its step along the plain gradient.

Loshchilov and Hutter 2019, arXiv 1711.05101. The equations are in `study.optimizers._adamw`; they, and the defaults, are those of
torch.optim.AdamW. Other rules take the same step along their own gradient with `optimizer/base=adamw`.
"""

from dataclasses import replace

from pydantic import Field

from study.config import setting
from study.optimizers import LARGEST, BlendedRule, RuleSettings, constant_rule
from study.optimizers._adamw import AdamW, AdamWSettings


class Settings(AdamWSettings):
    """Settings of AdamW."""

    lr: float = setting(
        1e-3,
        "Learning rate: length of a step per unit of gradient over its running root mean square.",
        short="lr",
        unit="1",
        role="learning rate",
        gt=0,
        le=LARGEST,
    )
    weight_decay: float = Field(
        0.01, ge=0, le=LARGEST, description="Multiple of the weights, times the learning rate, taken off in each step."
    )


def build(settings: Settings, lanes: int, device: str) -> BlendedRule:
    """The rule for a number of lanes."""
    plain = constant_rule(RuleSettings(lr=settings.lr, weight_decay=settings.weight_decay), lanes, device)
    return replace(plain, adamw=AdamW.of(settings, lanes, device))
