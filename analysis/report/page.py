"""A page as data, and its files: HTML, PNG, CSV.

A page has sections of paragraphs, tables and pictures. Its HTML opens offline: the pictures are embedded, once for wide screens
and once for narrow ones. Every number in a table carries its full value in the cell's attribute `data-value`, and every row the
MLflow runs it comes from.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from analysis.figures.style import DARK, Size
from analysis.figures.traces import Chart
from study.errors import StudyError

Draw = Callable[[Path, Size], None]
"""Draws a figure into a PNG file for wide or narrow screens."""

FIGURE_FORMATS: Final = ("png", "svg", "pdf")
TABLE_FORMATS: Final = ("csv", "parquet", "latex")
FORMATS: Final = FIGURE_FORMATS + TABLE_FORMATS
"""What figures and tables can be written as; `latex` uses booktabs."""

Kind = Literal["text", "share", "signed", "count", "number", "p", "hours", "verdict", "run"]


@dataclass(frozen=True)
class Column:
    """A column of a table as readers see it.

    Attributes:
        key: column of the frame; if `KEY_low` and `KEY_high` are there too, the interval is shown.
        heading: of the column, with the unit unless it is a share.
        kind: how its values are formatted.
        absent: what a missing value is called.
    """

    key: str
    heading: str
    kind: Kind = "text"
    absent: str = "unknown"


@dataclass(frozen=True)
class Table:
    """A table on the page, and its CSV file.

    The page shows `columns` of `rows`, by default of the whole frame; the file `name`.csv has the whole frame with numbers in
    full.
    """

    name: str
    caption: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]
    folded: bool = False
    rows: pd.DataFrame | None = None

    @property
    def is_table(self) -> bool:
        """For the template."""
        return True

    @property
    def summary(self) -> str:
        """The caption's first sentence, shown while folded."""
        return self.caption.split(". ")[0].rstrip(".")

    @property
    def shown(self) -> tuple[Column, ...]:
        """The columns that the frame has."""
        return tuple(column for column in self.columns if column.key in self.frame)

    def cells(self, addresses: Mapping[str, str]) -> Iterator[list[tuple[Column, Markup]]]:
        """Each row's columns and cells."""
        for row in (self.frame if self.rows is None else self.rows).to_dict("records"):
            yield [(column, cell(column, row, addresses)) for column in self.shown]


@dataclass(frozen=True)
class Picture:
    """A figure: `draw(path, size)` writes it as a file.

    With a `chart`, the page shows that, and the files are for other uses.
    """

    name: str
    caption: str
    draw: Draw
    run_ids: tuple[str, ...] = ()
    chart: Chart | None = None

    @property
    def is_table(self) -> bool:
        """For the template."""
        return False


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Paragraphs are plain text with code between backticks; a tuple of them becomes a list.
    """

    anchor: str
    title: str
    paragraphs: tuple[str | tuple[str, ...], ...] = ()
    blocks: tuple[Table | Picture, ...] = ()


@dataclass(frozen=True)
class Page:
    """The whole report.

    `addresses` are the runs' pages in MLflow, by run id; empty without a server.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    addresses: Mapping[str, str] = field(default_factory=dict)

    @property
    def tables(self) -> list[Table]:
        """All tables, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Table)]

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Picture)]

    def write(
        self, folder: Path, formats: Collection[str] = (), told: Callable[[int, int], None] = lambda _, __: None
    ) -> None:
        """Writes `report.html`, `figures/NAME.png` and `tables/NAME.csv`.

        Equal pages give equal bytes.

        Args:
            folder: to be made.
            formats: further ones of `FORMATS` for figures and tables.
            told: is told after each figure how many of them are drawn, and how many there are.
        """
        (folder / "figures").mkdir(parents=True)
        (folder / "tables").mkdir()
        for table in self.tables:
            _write_table(table, folder / "tables" / _file_name(table.name), formats)
        images: dict[str, dict[str, str]] = {}
        for place, picture in enumerate(self.pictures):
            told(place, len(self.pictures))
            name = _file_name(picture.name)
            wide, narrow = folder / "figures" / f"{name}.png", folder / f".{name}.png"
            picture.draw(wide, "wide")
            for other in FIGURE_FORMATS:
                if other in formats and other != "png":
                    picture.draw(wide.with_name(f"{name}.{other}"), "wide")
            if picture.chart is None:
                picture.draw(narrow, "narrow")
                images[picture.name] = {"wide": _inline(wide), "narrow": _inline(narrow)}
                narrow.unlink()
        told(len(self.pictures), len(self.pictures))
        environment = jinja2.Environment(
            autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        environment.filters |= {
            "marked": marked,
            "run": lambda run_id: run_link(run_id, self.addresses),
            "data": data,
        }
        source = resources.files(__package__)
        template = environment.from_string(source.joinpath("page.html").read_text(encoding="utf-8"))
        script = Markup(source.joinpath("page.js").read_text(encoding="utf-8"))  # noqa: S704  of our own
        library = plotly() if any(picture.chart for picture in self.pictures) else ""
        text = template.render(page=self, images=images, script=script, plotly=library, dark=DARK)
        (folder / "report.html").write_text(text, encoding="utf-8")


@cache
def plotly() -> str:
    """plotly.js, compressed, as text that a page can hold."""
    from plotly.offline import get_plotlyjs  # only a page with charts needs it

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def data(value: object) -> Markup:
    """JSON that a script element can hold."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for letter in "<>&`":  # the last for readers of the page as text, to whom it marks code
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704  without any letter that HTML reads


def _write_table(table: Table, place: Path, formats: Collection[str]) -> None:
    """Writes a table as CSV and in other formats; `place` has no suffix."""
    table.frame.to_csv(f"{place}.csv", index=False, lineterminator="\n")
    if "parquet" in formats:
        from analysis.report import paper_tables  # pyarrow takes a while to import, and few ask for it

        paper_tables.write_parquet(table, Path(f"{place}.parquet"))
    if "latex" in formats:
        from analysis.report import paper_tables

        Path(f"{place}.tex").write_text(paper_tables.latex(table), encoding="utf-8")


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def marked(text: str) -> Markup:
    """Plain text as HTML: `code` between backticks, *emphasis* between asterisks."""
    return Markup().join(_marked_part(part) for part in re.split(r"(`[^`]+`|\*[^*\s][^*]*\*)", text))


def _marked_part(part: str) -> Markup:
    if len(part) > 2 and part[0] == part[-1] == "`":
        return Markup("<code>{}</code>").format(part[1:-1])
    if len(part) > 2 and part[0] == part[-1] == "*":
        return Markup("<em>{}</em>").format(part[1:-1])
    return escape(part)


def run_link(run_id: str, addresses: Mapping[str, str]) -> Markup:
    """A run's short id, linked to MLflow where served.

    The element's title has the full id.
    """
    code = Markup('<code class="run" title="{0}" data-run="{0}">{1}</code>').format(run_id, run_id[:8])
    return Markup('<a href="{}">{}</a>').format(addresses[run_id], code) if run_id in addresses else code


def cell(column: Column, row: dict[Any, Any], addresses: Mapping[str, str]) -> Markup:
    """The content of a cell."""
    value = row[column.key]
    if is_missing(value):
        return Markup('<span class="none">{}</span>').format(column.absent)
    match column.kind:
        case "text":
            return marked(str(value))
        case "verdict":
            return Markup('<span class="verdict {0}">{0}</span>').format(value)
        case "run":
            return Markup(" ").join(run_link(run_id, addresses) for run_id in str(value).split())
        case kind:
            return number(kind, value) + _interval(kind, row, column.key)


def number(kind: Kind, value: float) -> Markup:
    """A formatted number with its full value as an attribute."""
    return Markup('<span data-value="{}">{}</span>').format(repr(float(value)), written(kind, float(value)))


def _interval(kind: Kind, row: dict[Any, Any], key: str) -> Markup:
    """A number's bounds, if the row has them."""
    if f"{key}_low" not in row:
        return Markup()
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    if is_missing(low) or is_missing(high):
        return Markup(' <span class="none">interval unknown</span>')
    return Markup(' <span class="interval">[{}, {}]</span>').format(number(kind, low), number(kind, high))


def is_missing(value: object) -> bool:
    """Whether a value is None, NaN, NA or NaT."""
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def written(kind: Kind, value: float) -> str:
    """A number formatted for readers."""
    match kind:
        case "share" | "signed" | "count":
            return format(value, {"share": ".4f", "signed": "+.4f", "count": ",.0f"}[kind])
        case "p":
            return f"{value:.4f}" if value >= 0.0001 else f"{value:.1e}"
        case "hours":
            return f"{value:.1f} h" if value >= 1 else f"{60 * value:.1f} min"
        case _:
            return f"{value:.3g}"


def joined(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def count(number: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _file_name(name: str) -> str:
    """The name, if it is a plain file name.

    It contains text from MLflow. Raises StudyError if it would lead out of its folder.
    """
    if Path(name).name != name or "\0" in name:
        raise StudyError(f"{name!r}, made of names in MLflow, cannot name a file of the report.")
    return name
