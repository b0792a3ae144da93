"""Is sharpness the cause? Probes, and doses of rho.

The hypotheses and their criteria are those of `study/docs/cause.md`. They were written down before either experiment was run.
"""

from typing import Final

from study import schema

MARGIN: Final = 0.005
"""Accuracy below which a difference does not matter, a share: half a percentage point."""

SHARPNESS: Final = schema.onset_name(schema.HESSIAN_EIGENVALUE)
"""Sharpness: on the new task's images, before the first step on it."""
