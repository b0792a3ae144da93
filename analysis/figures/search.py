from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass
class Tried:
    method: str
    settings: dict
    value: float
    finished: bool


@dataclass
class HeatMap:
    title: str
    rows: list
    columns: list
    row_label: str
    column_label: str
    values: list
    unit: str
    diverging: bool


def _d(path, *a):
    f = Figure(figsize=(9.5, 3) if a[-1] == "wide" else (3.6, 3))
    f.text(0.1, 0.5, str(a[0]))
    f.savefig(path)


settings_scatter = parallel_coordinates = importance = heat_maps = _d
