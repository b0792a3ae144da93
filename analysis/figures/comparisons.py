from dataclasses import dataclass

from analysis.figures.search import _d


@dataclass
class Confirmed:
    label: str
    method: str
    tuned: float
    confirmed: float
    low: float
    high: float


@dataclass
class Difference:
    label: str
    mean: float
    low: float
    high: float
    p: float


tuned_and_confirmed = differences = _d
