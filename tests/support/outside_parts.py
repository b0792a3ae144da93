"""Parts of somebody else: a rule in one file, an intervention in an installed package."""

from pathlib import Path

RULE = '''
"""Gradient descent that looks uphill first, as a part of somebody's own."""

from study.config import setting
from study.optimizers import LARGEST, BlendedRule, RuleSettings, constant_rule


class Settings(RuleSettings):
    """Settings of the rule."""

    reach: float = setting(0.1, "How far it looks uphill.", short="reach", unit="miles", role="sharpness", gt=0, le=LARGEST)


def build(settings: Settings, lanes: int, device: str) -> BlendedRule:
    """The rule for that many lanes."""
    return constant_rule(settings, lanes, device, blend=1.0, radius=settings.reach)
'''

PACKAGE = "somebodys_parts"
"""Name of the package, and of its distribution."""


def install(site: Path) -> None:
    """Puts a package with an intervention `damping` into a folder of installed packages."""
    source = Path(__file__).resolve().parents[2] / "study" / "interventions" / "shrink_and_perturb.py"
    (site / PACKAGE).mkdir(parents=True)
    (site / PACKAGE / "__init__.py").touch()
    (site / PACKAGE / "damping.py").write_bytes(source.read_bytes())
    information = site / f"{PACKAGE}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[plasticity_study.interventions]\ndamping = {PACKAGE}.damping\n")
